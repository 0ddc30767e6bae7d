//! `cohere2`: one norm for attention and feed-forward layers, which stand side by side; rotary positions of
//! neighbouring features in layers with a window, none in the others.

use qoft_core::Result;

use super::{LayerOptions, LlamaLike, Multipliers, attention_biases, windows};
use crate::decoder::{NormPlacement, RopeDefaults, RopePairs};
use crate::json::Object;
use crate::norm::NormKind;
use crate::registry::ArchitectureRegistration;

static COHERE2: LlamaLike = LlamaLike {
    tied: true,
    padding: Some(0),
    norm: NormKind::Layer { bias: false },
    eps_key: "layer_norm_eps",
    eps: 1e-5,
    norms: NormPlacement::Parallel,
    rope: RopeDefaults {
        pairs: RopePairs::Neighbours,
        ..RopeDefaults::USUAL
    },
    biases: attention_biases,
    layers,
    multipliers: |json| {
        Ok(Multipliers {
            logits: json.positive("logit_scale")?.unwrap_or(0.0625),
            ..Multipliers::NONE
        })
    },
    positions: 8_192,
    ..LlamaLike::new(&["cohere2"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&COHERE2);

crate::register_architecture!(REGISTRATION);

fn layers(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let every = match json.has("layer_types") {
        true => 4,
        false => json.size("sliding_window_pattern")?.unwrap_or(4),
    };
    let layers = windows::in_all_but_every(json, every, windows::DEFAULT, layers)?;
    let layers = layers.into_iter().map(|layer| LayerOptions {
        rope: layer.window.is_some(),
        ..layer
    });
    Ok(layers.collect())
}
