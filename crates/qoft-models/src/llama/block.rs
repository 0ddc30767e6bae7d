//! A decoder block: attention and feed-forward layers with norms and residuals.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Rope;
use qoft_core::{Result, walkable};

use super::attention::Attention;
use super::config::{DecoderConfig, Family};
use super::mlp::Mlp;
use super::norm::Norm;
use crate::cache::LayerCache;
use crate::loader::Loader;

/// One block of the model.
#[derive(Module, Debug)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    #[module(skip)]
    norms: Norms,
    /// Multiplies what is added to the residual stream.
    #[module(skip)]
    residual: f64,
}

walkable!(Block { self_attn, mlp });

/// Where a block normalizes; a norm after a sublayer comes before the residual is added.
#[derive(Debug, Clone)]
struct Norms {
    before_attention: Option<Norm>,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    after_mlp: Option<Norm>,
}

impl Norms {
    fn load(loader: &Loader, hidden: usize, config: &DecoderConfig, path: &str) -> Result<Self> {
        let norm = |name: &str| {
            let path = format!("{path}.{name}");
            Norm::load(loader, &path, hidden, config.rms_norm_eps).map(Some)
        };
        // The same name stands for two places: olmo2's norm really is after the attention.
        Ok(match config.family {
            Family::Olmo2 => Self {
                before_attention: None,
                after_attention: norm("post_attention_layernorm")?,
                before_mlp: None,
                after_mlp: norm("post_feedforward_layernorm")?,
            },
            _ => Self {
                before_attention: norm("input_layernorm")?,
                after_attention: None,
                before_mlp: norm("post_attention_layernorm")?,
                after_mlp: None,
            },
        })
    }

    fn all(&self) -> impl Iterator<Item = &Norm> {
        let attention = self.before_attention.iter().chain(&self.after_attention);
        attention.chain(&self.before_mlp).chain(&self.after_mlp)
    }
}

impl Block {
    /// Loads block `layer` from the module path `path`.
    pub fn load(
        loader: &Loader,
        hidden: usize,
        config: &DecoderConfig,
        path: &str,
        layer: usize,
    ) -> Result<Self> {
        let attention = format!("{path}.self_attn");
        Ok(Self {
            self_attn: Attention::load(loader, hidden, config, &attention, layer)?,
            mlp: Mlp::load(loader, hidden, config, &format!("{path}.mlp"))?,
            norms: Norms::load(loader, hidden, config, path)?,
            residual: config.multipliers.residual,
        })
    }

    fn add(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if self.residual == 1.0 {
            x + y
        } else {
            x + y * self.residual
        }
    }

    /// Weights of the norms.
    pub fn norm_parameters(&self) -> usize {
        let own: usize = self.norms.all().map(Norm::parameters).sum();
        own + self.self_attn.norm_parameters()
    }
}

impl crate::stack::Block for Block {
    type Shared = Rope;

    fn forward(&self, x: Tensor<3>, rope: &Rope, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let [batch, time, hidden] = x.dims();
        let x = x.reshape([batch * time, hidden]);
        let norms = &self.norms;
        let y = apply(&norms.before_attention, x.clone());
        let y = self.self_attn.forward(y, [batch, time], rope, cache);
        let x = self.add(x, apply(&norms.after_attention, y));
        let y = apply(&norms.before_mlp, x.clone());
        let y = self.mlp.forward(y);
        let x = self.add(x, apply(&norms.after_mlp, y));
        x.reshape([batch, time, hidden])
    }
}

fn apply(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
