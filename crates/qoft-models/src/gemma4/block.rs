//! A block: attention, feed-forward layers, and what the embedding of each token adds in this block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops;
use qoft_core::{Linear, Norm, Result, Still, Walk};

use super::attention::{Attention, AttentionConfig, Sharing};
use crate::body::{self, Span, Stream};
use crate::cache::{Caches, only};
use crate::decoder::{Mlp, MlpConfig};
use crate::key_values::KeyValues;
use crate::loader::Loader;
use crate::norm::NormConfig;

/// A block, described.
#[derive(Debug, Clone)]
pub struct BlockConfig {
    /// Its attention.
    pub attention: AttentionConfig,
    /// Its feed-forward layers.
    pub mlp: MlpConfig,
    /// Its norms.
    pub norm: NormConfig,
    /// What each token adds in this block: the number of the block and the width, unless that is 0.
    pub per_layer: Option<[usize; 2]>,
}

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Norm,
    post_attention_layernorm: Norm,
    pre_feedforward_layernorm: Norm,
    post_feedforward_layernorm: Norm,
    per_layer_input_gate: Option<Linear>,
    per_layer_projection: Option<Linear>,
    post_per_layer_input_norm: Option<Norm>,
    /// Multiplies all that comes out.
    #[walk(skip)]
    layer_scalar: Still<Tensor<1>>,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
    /// The features of this block among those that are carried for all of them: the first one, and how
    /// many.
    #[module(skip)]
    #[walk(skip)]
    per_layer: Option<[usize; 2]>,
}

impl Block {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &BlockConfig) -> Result<Self> {
        let hidden = config.attention.hidden;
        let norm = |name| loader.norm(name, hidden, config.norm);
        let width = config.per_layer.map(|[_, width]| width);
        let gate = |width| loader.linear("per_layer_input_gate", [width, hidden], false);
        let projection = |width| loader.linear("per_layer_projection", [hidden, width], false);
        Ok(Self {
            self_attn: Attention::load(&loader.below("self_attn"), &config.attention)?,
            mlp: Mlp::load(&loader.below("mlp"), &config.mlp)?,
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            per_layer_input_gate: width.map(gate).transpose()?,
            per_layer_projection: width.map(projection).transpose()?,
            post_per_layer_input_norm: width
                .map(|_| norm("post_per_layer_input_norm"))
                .transpose()?,
            layer_scalar: Still::new(loader.tensor("layer_scalar", [1])?),
            activation: config.mlp.activation,
            per_layer: config
                .per_layer
                .map(|[number, width]| [number * width, width]),
        })
    }

    /// Adds what the token says for this block, of which `carried` has all of them.
    fn with_token(&self, x: Tensor<2>, carried: &[Tensor<3>]) -> Tensor<2> {
        let (Some(gate), Some(projection), Some(norm), Some([first, width])) = (
            &self.per_layer_input_gate,
            &self.per_layer_projection,
            &self.post_per_layer_input_norm,
            self.per_layer,
        ) else {
            return x;
        };
        let rows = x.dims()[0];
        let token = carried[0].clone().narrow(2, first, width);
        let token = token.reshape([rows, width]);
        let gate = gate.forward(x.clone());
        let (gate, token) = ops::lifted(gate, token);
        let [gate, token] = [gate, token].map(|x| projection.keep(x));
        let y = projection.forward(ops::gated(gate, token, self.activation));
        x + norm.forward(y).into_tensor()
    }
}

impl body::Block for Block {
    type Cache = KeyValues;

    fn new_cache(&self) -> KeyValues {
        self.self_attn.new_cache()
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<KeyValues>) -> Stream {
        let [batch, time, hidden] = stream.hidden.dims();
        let mut carried = stream.carried;
        let x = stream.hidden.reshape([batch * time, hidden]);
        let y = self.input_layernorm.forward(x.clone());
        let shared = match self.self_attn.sharing() {
            Sharing::Reads(at) => Some([carried[at].clone(), carried[at + 1].clone()]),
            Sharing::Own | Sharing::HandsOn => None,
        };
        let (y, pair) = self
            .self_attn
            .forward(y, [batch, time], span, only(caches), shared);
        if self.self_attn.sharing() == Sharing::HandsOn {
            let flat = |x: Tensor<4>| {
                let [batch, keys, heads, width] = x.dims();
                x.reshape([batch, keys, heads * width])
            };
            carried.extend([flat(pair.0), flat(pair.1)]);
        }
        let x = x + self.post_attention_layernorm.forward(y).into_tensor();
        let y = self
            .mlp
            .forward(self.pre_feedforward_layernorm.forward(x.clone()));
        let x = x + self.post_feedforward_layernorm.forward(y).into_tensor();
        let x = self.with_token(x, &carried);
        let (x, scalar) = ops::lifted(x, Tensor::clone(&self.layer_scalar));
        let x = x * scalar.unsqueeze();
        Stream::new(x.reshape([batch, time, hidden])).carrying(carried)
    }
}
