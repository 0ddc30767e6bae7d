//! `exaone4`: norms after the sublayers and on heads; where there are windows, layers without one have no rotary
//! positions.

use qoft_core::Result;

use super::{LayerOptions, LlamaLike, windows};
use crate::decoder::{HeadNorm, NormPlacement};
use crate::json::Object;
use crate::registry::ArchitectureRegistration;

static EXAONE4: LlamaLike = LlamaLike {
    eps: 1e-5,
    head_norm: HeadNorm::Each,
    norms: NormPlacement::After,
    layers,
    ..LlamaLike::new(&["exaone4"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&EXAONE4);

crate::register_architecture!(REGISTRATION);

fn layers(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let none = json.has("sliding_window") && json.size("sliding_window")?.is_none();
    // Where `layer_types` tells the kinds, the pattern may be a word.
    let pattern = match json.has("layer_types") {
        true => None,
        false => json.size("sliding_window_pattern")?,
    };
    // Without a window the pattern is not read.
    let every = if none { 1 } else { pattern.unwrap_or(4) };
    let layers = windows::in_all_but_every(json, every, windows::DEFAULT, layers)?;
    let layers = layers.into_iter().map(|layer| LayerOptions {
        rope: none || layer.window.is_some(),
        ..layer
    });
    Ok(layers.collect())
}
