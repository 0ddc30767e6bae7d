//! A block: attention and feed-forward layers, each after a norm and with a residual.

use qoft_core::burn::module::Module;
use qoft_core::{Norm, Result, Walk, burn};
use qoft_models::decoder::Attention;
use qoft_models::{KeyValues, Loader, Span, Stream};

use crate::config::Starcoder2Config;
use crate::mlp::Mlp;

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Norm,
    post_attention_layernorm: Norm,
}

impl Block {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &Starcoder2Config) -> Result<Self> {
        let norm = |name| loader.layer_norm(name, config.attention.hidden, config.eps);
        Ok(Self {
            self_attn: Attention::load(&loader.below("self_attn"), &config.attention)?,
            mlp: Mlp::load(&loader.below("mlp"), config)?,
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
        })
    }
}

impl qoft_models::Block for Block {
    type Cache = KeyValues;

    fn new_cache(&self) -> KeyValues {
        self.self_attn.new_cache()
    }

    fn forward(&self, stream: Stream, span: &Span, cache: Option<&mut KeyValues>) -> Stream {
        let [batch, time, hidden] = stream.hidden.dims();
        let x = stream.hidden.reshape([batch * time, hidden]);
        let y = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(y, [batch, time], span, cache);
        let y = self.post_attention_layernorm.forward(x.clone());
        let x = x + self.mlp.forward(y);
        Stream::new(x.reshape([batch, time, hidden])).carrying(stream.carried)
    }
}
