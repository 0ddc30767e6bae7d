//! `gemma4_text`, and the text part of `gemma4`: embeddings for each layer, layers that read the keys and
//! values of earlier ones, heads of two widths.

mod attention;
mod block;
mod body;
mod layers;

use qoft_core::Result;
use qoft_core::kernels::ops::SoftCap;
use serde_json::{Value, json};

use crate::activation::activation;
use crate::architecture::Architecture;
use crate::config::{ModelConfig, ModelNames, SizeKeys};
use crate::json::Object;
use crate::norm::NormConfig;
use crate::padding::pad_token_id;
use crate::registry::ArchitectureRegistration;
use crate::spec::ModelSpec;

use body::Gemma4Config;

struct Gemma4 {
    /// Its one `model_type`.
    model_types: &'static [&'static str],
    names: ModelNames,
    /// Whether it is a part of a file that describes others, too.
    is_part: bool,
}

static TEXT: Gemma4 = Gemma4 {
    model_types: &["gemma4_text"],
    names: ModelNames::USUAL,
    is_part: false,
};

/// Pictures and sounds are not read: the text part is a model of its own.
static PART: Gemma4 = Gemma4 {
    model_types: &["gemma4"],
    names: ModelNames::TEXT_PART.with_other_parts(&[
        "model.vision_tower",
        "model.embed_vision",
        "model.audio_tower",
        "model.embed_audio",
    ]),
    is_part: true,
};

static ALONE: ArchitectureRegistration = ArchitectureRegistration::new(&TEXT);
static WHOLE: ArchitectureRegistration = ArchitectureRegistration::new(&PART);

crate::register_architecture!(ALONE);
crate::register_architecture!(WHOLE);

/// The key of the text part.
const TEXT_CONFIG: &str = "text_config";

impl Architecture for Gemma4 {
    fn name(&self) -> &'static str {
        self.model_types[0]
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn describe(&self, root: Object) -> Result<ModelSpec> {
        let part = match self.is_part {
            false => root,
            true => root.require_object(TEXT_CONFIG, "text_config.")?,
        };
        let filled = part.over(defaults());
        let json = part.with_value(&filled);
        json.warn_of_dropout(&["attention_dropout"])?;
        // Texts have no tokens of pictures, whose attention goes both ways.
        json.choice("use_bidirectional_attention", &[("vision", ())])?;
        if json.flag("enable_moe_block")? {
            return Err(json.error("enable_moe_block", "mixtures of experts are not supported"));
        }
        let mut model = ModelConfig::read(json, &SizeKeys::USUAL)?;
        model.model_type = root.require("model_type")?;
        let tied = root.get("tie_word_embeddings")?;
        model.tie_word_embeddings = tied.unwrap_or(true);
        let cap = json.positive("final_logit_softcapping")?;
        model.logits_soft_cap = cap.map(|cap| SoftCap::new(cap as f32));

        let norm = NormConfig::new(json.require_positive("rms_norm_eps")? as f32);
        let key = "hidden_activation";
        let activation = activation(json, key)?.ok_or_else(|| json.error(key, "is missing"))?;
        let per_layer = per_layer(json, &model)?;
        let width = per_layer.map(|[_, width]| width);
        let config = Gemma4Config {
            blocks: layers::read(json, &model, norm, activation, width)?,
            norm,
            pad_token_id: pad_token_id(json, None, model.vocab_size)?,
            per_layer,
        };
        ModelSpec::new(model, self.names, config)
    }
}

/// The table of what tokens add in each layer: entries, and the width for one layer.
fn per_layer(json: Object, model: &ModelConfig) -> Result<Option<[usize; 2]>> {
    let key = "hidden_size_per_layer_input";
    if json.get::<usize>(key)? == Some(0) {
        return Ok(None);
    }
    let width = json.require_size(key)?;
    if width > WIDEST / model.num_hidden_layers {
        let reason = format!("{width} in each layer are more than {WIDEST}");
        return Err(json.error(key, reason));
    }
    let key = "vocab_size_per_layer_input";
    let entries = json.require_size(key)?;
    if entries < model.vocab_size {
        let reason = format!("{entries} is less than vocab_size, {}", model.vocab_size);
        return Err(json.error(key, reason));
    }
    Ok(Some([entries, width]))
}

/// More features than any model has for a token in all layers.
const WIDEST: usize = 1 << 24;

/// What transformers' configuration class has for keys that a file leaves out.
fn defaults() -> Value {
    json!({
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "sliding_window": 512,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1_000_000.0,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    })
}
