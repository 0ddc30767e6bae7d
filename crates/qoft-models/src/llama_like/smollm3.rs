//! `smollm3`: some layers without rotary positions.

use qoft_core::Result;

use super::{LayerOptions, LlamaLike, all_biases, windows};
use crate::decoder::RopeDefaults;
use crate::json::Object;
use crate::registry::ArchitectureRegistration;

static SMOLLM3: LlamaLike = LlamaLike {
    tied: true,
    padding: Some(128_004),
    rope: RopeDefaults::USUAL.with_theta(2_000_000.0),
    biases: all_biases,
    layers,
    positions: 32_768,
    ..LlamaLike::new(&["smollm3"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&SMOLLM3);

crate::register_architecture!(REGISTRATION);

/// Layers without positions may have windows.
fn layers(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let rope = with_positions(json, layers)?;
    let windows = windows::selected(json, None, layers, |layer| !rope[layer])?;
    let pairs = windows.into_iter().zip(rope);
    Ok(pairs
        .map(|(window, rope)| LayerOptions { window, rope })
        .collect())
}

/// `no_rope_layers`, in which a 1 means that the layer does use rotary positions.
fn with_positions(json: Object, layers: usize) -> Result<Vec<bool>> {
    let Some(flags) = json.get::<Vec<u8>>("no_rope_layers")? else {
        let interval = json.size("no_rope_layer_interval")?.unwrap_or(4);
        return Ok((1..=layers).map(|layer| layer % interval != 0).collect());
    };
    if flags.len() < layers {
        let reason = format!("has {} entries for {layers} layers", flags.len());
        return Err(json.error("no_rope_layers", reason));
    }
    Ok(flags.into_iter().take(layers).map(|f| f != 0).collect())
}
