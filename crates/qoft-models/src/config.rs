//! `config.json`, validated: everything that a model is built from.

use qoft_core::{Error, Result};
use serde_json::Value;

use crate::json::Object;
use crate::layers::LayerConfig;
use crate::rope_config::RopeConfig;

/// More layers than any model has.
const MOST_LAYERS: usize = 100_000;

/// The architectures, as `model_type` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `llama`
    Llama,
    /// `mistral`: sliding windows in all layers.
    Mistral,
    /// `qwen2`: biases on queries, keys and values.
    Qwen2,
    /// `qwen3`: norms on the heads of queries and keys.
    Qwen3,
    /// `smollm3`: some layers without rotary positions.
    SmolLm3,
    /// `olmo2`: norms after the sublayers, and on whole queries and keys.
    Olmo2,
    /// `granite`: scaled embeddings, residuals, scores and logits.
    Granite,
    /// `phi3`: fused projections, partial rotary positions.
    Phi3,
}

impl Family {
    const ALL: [(&'static str, Self); 8] = [
        ("llama", Self::Llama),
        ("mistral", Self::Mistral),
        ("qwen2", Self::Qwen2),
        ("qwen3", Self::Qwen3),
        ("smollm3", Self::SmolLm3),
        ("olmo2", Self::Olmo2),
        ("granite", Self::Granite),
        ("phi3", Self::Phi3),
    ];

    fn parse(json: Object) -> Result<(String, Self)> {
        let name: String = json.require("model_type")?;
        match Self::ALL.iter().find(|(known, _)| *known == name) {
            Some(&(_, family)) => Ok((name, family)),
            None => {
                let known: Vec<&str> = Self::ALL.iter().map(|(known, _)| *known).collect();
                let known = known.join(", ");
                let reason = format!("`{name}` is not supported; supported are {known}");
                Err(json.error("model_type", reason))
            }
        }
    }

    fn default_eps(self) -> f64 {
        match self {
            Self::Olmo2 | Self::Phi3 => 1e-5,
            _ => 1e-6,
        }
    }
}

/// Which projections must come with a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Biases {
    pub qkv: bool,
    pub output: bool,
    pub mlp: bool,
}

impl Biases {
    fn parse(json: Object, family: Family) -> Result<Self> {
        let (attention, mlp) = match family {
            Family::Llama | Family::SmolLm3 | Family::Granite => {
                (json.flag("attention_bias")?, json.flag("mlp_bias")?)
            }
            Family::Qwen3 | Family::Olmo2 => (json.flag("attention_bias")?, false),
            Family::Mistral | Family::Qwen2 | Family::Phi3 => (false, false),
        };
        Ok(Self {
            qkv: attention || family == Family::Qwen2,
            output: attention,
            mlp,
        })
    }
}

/// Constants that multiply what flows through the model; 1 outside of granite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Multipliers {
    pub embedding: f64,
    pub residual: f64,
    /// Of the scores.
    pub attention: f64,
    pub logits: f64,
}

impl Multipliers {
    fn parse(json: Object, family: Family, head_dim: usize) -> Result<Self> {
        if family != Family::Granite {
            return Ok(Self {
                embedding: 1.0,
                residual: 1.0,
                attention: (head_dim as f64).powf(-0.5),
                logits: 1.0,
            });
        }
        let get = |key| Ok::<f64, Error>(json.positive(key)?.unwrap_or(1.0));
        Ok(Self {
            embedding: get("embedding_multiplier")?,
            residual: get("residual_multiplier")?,
            attention: get("attention_multiplier")?,
            logits: 1.0 / get("logits_scaling")?,
        })
    }
}

/// The configuration of a model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `model_type` as `config.json` has it.
    pub model_type: String,
    /// The architecture.
    pub family: Family,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of the keys and values; divides the former.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The longest sequence that the model is meant for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Options of each layer.
    pub layers: Vec<LayerConfig>,
    pub(crate) biases: Biases,
    pub(crate) multipliers: Multipliers,
}

impl ModelConfig {
    /// Reads and checks the content of `config.json`.
    ///
    /// # Errors
    /// If a value is missing, impossible, or asks for something that is not implemented.
    pub fn parse(config: &Value) -> Result<Self> {
        let json = Object::root(config);
        let (model_type, family) = Family::parse(json)?;
        check_activation(json)?;
        warn_of_dropout(json)?;
        let hidden_size = json.require_size("hidden_size")?;
        let num_attention_heads = json.require_size("num_attention_heads")?;
        let num_key_value_heads = json
            .size("num_key_value_heads")?
            .unwrap_or(num_attention_heads);
        if num_attention_heads % num_key_value_heads != 0 {
            let reason =
                format!("{num_key_value_heads} does not divide {num_attention_heads} heads");
            return Err(json.error("num_key_value_heads", reason));
        }
        let head_dim = head_dim(json, family, hidden_size, num_attention_heads)?;
        let num_hidden_layers = json.require_size("num_hidden_layers")?;
        if num_hidden_layers > MOST_LAYERS {
            let reason = format!("{num_hidden_layers} is more than {MOST_LAYERS}");
            return Err(json.error("num_hidden_layers", reason));
        }
        let max_position_embeddings = json.require_size("max_position_embeddings")?;
        let eps = json.positive("rms_norm_eps")?;
        Ok(Self {
            family,
            vocab_size: json.require_size("vocab_size")?,
            hidden_size,
            intermediate_size: json.require_size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings,
            rms_norm_eps: eps.unwrap_or(family.default_eps()) as f32,
            tie_word_embeddings: json
                .get("tie_word_embeddings")?
                .unwrap_or(family == Family::SmolLm3),
            rope: RopeConfig::parse(json, family, head_dim, max_position_embeddings)?,
            layers: LayerConfig::parse(json, family, num_hidden_layers)?,
            biases: Biases::parse(json, family)?,
            multipliers: Multipliers::parse(json, family, head_dim)?,
            model_type,
        })
    }
}

fn head_dim(json: Object, family: Family, hidden: usize, heads: usize) -> Result<usize> {
    if let Some(head_dim) = json.size("head_dim")? {
        return Ok(head_dim);
    }
    if family == Family::Qwen3 && !json.has("head_dim") {
        return Ok(128);
    }
    if !hidden.is_multiple_of(heads) {
        let reason = format!("{hidden} is no multiple of {heads} heads, and there is no head_dim");
        return Err(json.error("hidden_size", reason));
    }
    Ok(hidden / heads)
}

fn check_activation(json: Object) -> Result<()> {
    match json.get::<String>("hidden_act")?.as_deref() {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => {
            let reason = format!("`{other}` is not supported; supported is silu");
            Err(json.error("hidden_act", reason))
        }
    }
}

/// Dropout changes training only, and OFT has its own: the model is usable without it.
fn warn_of_dropout(json: Object) -> Result<()> {
    for key in ["attention_dropout", "resid_pdrop", "embd_pdrop"] {
        if let Some(rate) = json.get::<f64>(key)?.filter(|&rate| rate != 0.0) {
            tracing::warn!("config.json: `{key}` of {rate} is ignored: it is not implemented");
        }
    }
    Ok(())
}
