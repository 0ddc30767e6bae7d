//! A decoder block: attention and feed-forward layers with norms and residuals.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Rope;
use qoft_core::ops::Traced;
use qoft_core::{Norm, Result, Walk};

use super::attention::Attention;
use super::config::{DecoderConfig, Family};
use super::mlp::Mlp;
use crate::cache::LayerCache;
use crate::loader::Loader;

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Option<Norm>,
    post_attention_layernorm: Norm,
    post_feedforward_layernorm: Option<Norm>,
    /// Whether norms come after the sublayers, before the residual is added, as in olmo2.
    #[module(skip)]
    #[walk(skip)]
    norms_after: bool,
    /// Multiplies what is added to the residual stream.
    #[module(skip)]
    #[walk(skip)]
    residual: f64,
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
        let norm = |name: &str| {
            loader.root_mean_square(&format!("{path}.{name}"), hidden, config.rms_norm_eps)
        };
        let norms_after = config.family == Family::Olmo2;
        let optional = |wanted: bool, name: &str| wanted.then(|| norm(name)).transpose();
        let attention = format!("{path}.self_attn");
        Ok(Self {
            self_attn: Attention::load(loader, hidden, config, &attention, layer)?,
            mlp: Mlp::load(loader, hidden, config, &format!("{path}.mlp"))?,
            input_layernorm: optional(!norms_after, "input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            post_feedforward_layernorm: optional(norms_after, "post_feedforward_layernorm")?,
            norms_after,
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
}

impl crate::stack::Block for Block {
    type Shared = Rope;

    fn forward(&self, x: Tensor<3>, rope: &Rope, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let [batch, time, hidden] = x.dims();
        let x = x.reshape([batch * time, hidden]);
        let y = apply(&self.input_layernorm, x.clone());
        let y = self.self_attn.forward(y, [batch, time], rope, cache);
        // The same name stands for two places: olmo2's norm really is after the attention.
        let norm = &self.post_attention_layernorm;
        let (x, y) = if self.norms_after {
            let x = self.add(x, norm.forward(y).into_tensor());
            (x.clone(), x.into())
        } else {
            let x = self.add(x, y);
            (x.clone(), norm.forward(x))
        };
        let y = self.mlp.forward(y);
        let y = apply(&self.post_feedforward_layernorm, y);
        let x = self.add(x, y.into_tensor());
        x.reshape([batch, time, hidden])
    }
}

fn apply(norm: &Option<Norm>, x: Tensor<2>) -> Traced<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x.into(),
    }
}
