//! `config.json`, validated: everything that a model is built from.

use qoft_core::Result;
use serde_json::Value;

use crate::gpt2::{self, Gpt2Config};
use crate::json::Object;
use crate::llama::{DecoderConfig, Family};

/// More layers than any model has.
const MOST_LAYERS: usize = 100_000;

/// The configuration of a model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `model_type` as `config.json` has it.
    pub model_type: String,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// The longest sequence that the model is meant for.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// What else the model's architecture has.
    pub architecture: Architecture,
}

/// The architectures and their options.
#[derive(Debug, Clone)]
pub enum Architecture {
    /// Rotary positions and gated feed-forward layers.
    Decoder(DecoderConfig),
    /// OpenAI's GPT-2: learned positions.
    Gpt2(Gpt2Config),
}

impl ModelConfig {
    /// Reads and checks the content of `config.json`.
    ///
    /// # Errors
    /// If a value is missing, impossible, or asks for something that is not implemented.
    pub fn parse(config: &Value) -> Result<Self> {
        let json = Object::root(config);
        let model_type: String = json.require("model_type")?;
        if model_type == gpt2::MODEL_TYPE {
            Gpt2Config::parse(json)
        } else {
            DecoderConfig::parse(json, Family::parse(json, model_type)?)
        }
    }

    /// The longest sequence that the model can compute at all; `None` where there is no limit, as
    /// with rotary positions.
    pub fn longest_sequence(&self) -> Option<usize> {
        match self.architecture {
            Architecture::Decoder(_) => None,
            Architecture::Gpt2(_) => Some(self.max_position_embeddings),
        }
    }

    /// How many keys a query sees at most in each layer, itself included; `None`: all before it.
    pub(crate) fn windows(&self) -> Vec<Option<usize>> {
        match &self.architecture {
            Architecture::Decoder(config) => config.layers.iter().map(|l| l.window).collect(),
            Architecture::Gpt2(_) => vec![None; self.num_hidden_layers],
        }
    }

    /// What the logits are multiplied by.
    pub(crate) fn logits_multiplier(&self) -> f64 {
        match &self.architecture {
            Architecture::Decoder(config) => config.multipliers.logits,
            Architecture::Gpt2(_) => 1.0,
        }
    }
}

/// The number of blocks, under its key.
pub(crate) fn block_count(json: Object, key: &str) -> Result<usize> {
    match json.require_size(key)? {
        count if count > MOST_LAYERS => {
            Err(json.error(key, format!("{count} is more than {MOST_LAYERS}")))
        }
        count => Ok(count),
    }
}

/// Dropout changes training only, and OFT has its own: the model is usable without it.
pub(crate) fn warn_of_dropout(json: Object, keys: &[&str]) -> Result<()> {
    for key in keys {
        if let Some(rate) = json.get::<f64>(key)?.filter(|&rate| rate != 0.0) {
            tracing::warn!("config.json: `{key}` of {rate} is ignored: it is not implemented");
        }
    }
    Ok(())
}
