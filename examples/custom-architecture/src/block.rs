//! A block: attention and feed-forward layers, one after the other or side by side, with residuals.

use qoft_core::burn::module::Module;
use qoft_core::{Norm, Result, Walk, burn};
use qoft_models::decoder::Attention;
use qoft_models::{Caches, KeyValues, Loader, Span, Stream};

use crate::config::StableLmConfig;
use crate::mlp::Mlp;

/// One block of the model.
#[derive(Module, Debug, Walk)]
pub struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Norm,
    /// None where the feed-forward layers read what the attention reads.
    post_attention_layernorm: Option<Norm>,
}

impl Block {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: &StableLmConfig) -> Result<Self> {
        let norm = |name| loader.norm(name, config.attention.hidden, config.norm);
        let second = || norm("post_attention_layernorm");
        Ok(Self {
            self_attn: Attention::load(&loader.below("self_attn"), &config.attention)?,
            mlp: Mlp::load(&loader.below("mlp"), config)?,
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: (!config.parallel).then(second).transpose()?,
        })
    }
}

impl qoft_models::Block for Block {
    type Cache = KeyValues;

    fn new_cache(&self) -> KeyValues {
        self.self_attn.new_cache()
    }

    fn forward(&self, stream: Stream, span: &Span, caches: Caches<KeyValues>) -> Stream {
        let [batch, time, hidden] = stream.hidden.dims();
        let x = stream.hidden.reshape([batch * time, hidden]);
        let y = self.input_layernorm.forward(x.clone());
        let mixed = self
            .self_attn
            .forward(y.clone(), [batch, time], span, caches);
        let x = x + mixed;
        let y = match &self.post_attention_layernorm {
            Some(norm) => norm.forward(x.clone()),
            None => y,
        };
        let x = x + self.mlp.forward(y);
        Stream::new(x.reshape([batch, time, hidden])).carrying(stream.carried)
    }
}
