//! The keys of `config.json` that llama and its relatives have.

use qoft_core::{Error, Result};

use super::layers::LayerConfig;
use super::rope_config::RopeConfig;
use crate::config::{Architecture, ModelConfig, block_count, warn_of_dropout};
use crate::gpt2;
use crate::json::Object;

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

    /// The family of a `model_type`.
    pub(crate) fn parse(json: Object, model_type: String) -> Result<Self> {
        match Self::ALL.iter().find(|(known, _)| *known == model_type) {
            Some(&(_, family)) => Ok(family),
            None => {
                let known = Self::ALL.iter().map(|(known, _)| *known);
                let known: Vec<&str> = known.chain([gpt2::MODEL_TYPE]).collect();
                let known = known.join(", ");
                let reason = format!("`{model_type}` is not supported; supported are {known}");
                Err(json.error("model_type", reason))
            }
        }
    }

    /// `model_type` as `config.json` has it.
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, family)| *family == self);
        found.expect("all families have a name").0
    }

    /// The token of the padding where `config.json` does not mention it.
    fn default_padding(self) -> Option<i64> {
        match self {
            Self::Olmo2 => Some(1),
            Self::Phi3 => Some(32_000),
            Self::SmolLm3 => Some(128_004),
            _ => None,
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

/// What only these models have.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// The architecture.
    pub family: Family,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of the keys and values; divides the former.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f32,
    /// The token of the padding, whose row of the embedding table does not train.
    pub pad_token_id: Option<usize>,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Options of each layer.
    pub layers: Vec<LayerConfig>,
    pub(crate) biases: Biases,
    pub(crate) multipliers: Multipliers,
}

impl DecoderConfig {
    /// Reads and checks the `config.json` of a model of this family.
    pub(crate) fn parse(json: Object, family: Family) -> Result<ModelConfig> {
        check_activation(json)?;
        warn_of_dropout(json, &["attention_dropout", "resid_pdrop", "embd_pdrop"])?;
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
        let num_hidden_layers = block_count(json, "num_hidden_layers")?;
        let max_position_embeddings = json.require_size("max_position_embeddings")?;
        let eps = json.positive("rms_norm_eps")?;
        let vocab_size = json.require_size("vocab_size")?;
        Ok(ModelConfig {
            model_type: family.name().to_owned(),
            vocab_size,
            hidden_size,
            num_hidden_layers,
            max_position_embeddings,
            tie_word_embeddings: json
                .get("tie_word_embeddings")?
                .unwrap_or(family == Family::SmolLm3),
            architecture: Architecture::Decoder(Self {
                family,
                intermediate_size: json.require_size("intermediate_size")?,
                num_attention_heads,
                num_key_value_heads,
                head_dim,
                rms_norm_eps: eps.unwrap_or(family.default_eps()) as f32,
                pad_token_id: pad_token_id(json, family, vocab_size)?,
                rope: RopeConfig::parse(json, family, head_dim, max_position_embeddings)?,
                layers: LayerConfig::parse(json, family, num_hidden_layers)?,
                biases: Biases::parse(json, family)?,
                multipliers: Multipliers::parse(json, family, head_dim)?,
            }),
        })
    }
}

/// A number below 0 counts from the end of the table, as in torch.
fn pad_token_id(json: Object, family: Family, vocab_size: usize) -> Result<Option<usize>> {
    let id = match json.has("pad_token_id") {
        true => json.get::<i64>("pad_token_id")?,
        false => family.default_padding(),
    };
    let id = id.map(|id| {
        if id < 0 {
            id.saturating_add_unsigned(vocab_size as u64)
        } else {
            id
        }
    });
    Ok(id
        .and_then(|id| usize::try_from(id).ok())
        .filter(|&id| id < vocab_size))
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
