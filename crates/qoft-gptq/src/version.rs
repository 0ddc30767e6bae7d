//! The version of the zero points in a checkpoint.

use qoft_scheme::{Checkpoint, LayerSource};

use crate::config::{GptqConfig, ModuleConfig, ZeroPoints};
use crate::layout::GptqLayer;

/// Layers that are asked which version their checkpoint has.
const ASKED: usize = 8;

/// The configuration with the version that the zero points themselves give away, if they do.
///
/// There are files with the wrong label. A symmetric layer has the middle of the range as its
/// only zero point.
pub fn as_stored(checkpoint: &Checkpoint, mut config: GptqConfig) -> GptqConfig {
    let label = config.zero_points;
    let told = first_layers(checkpoint, &config)
        .filter(|(_, module, _)| module.sym)
        .take(ASKED)
        .find_map(|(path, _, layer)| {
            let stored = layer.stored_zeros();
            let middle = 1u8 << (layer.bits - 1);
            let all = |value| stored.iter().all(|&field| field == value);
            if all(middle) {
                Some((path, ZeroPoints::V2))
            } else if all(middle - 1) {
                Some((path, ZeroPoints::V1))
            } else {
                None
            }
        });
    let Some((path, found)) = told else {
        return config;
    };
    if found != label {
        tracing::warn!(
            "layer `{path}`: the configuration says {}, but the zero points are those of a \
             symmetric {} layer; they are read as such, here and in all other layers",
            label.name(),
            found.name(),
        );
    }
    config.zero_points = found;
    config
}

/// The first layers that have zero points, parsed, if they can be.
fn first_layers(
    checkpoint: &Checkpoint,
    config: &GptqConfig,
) -> impl Iterator<Item = (String, ModuleConfig, GptqLayer)> {
    let paths = checkpoint
        .names()
        .filter_map(|name| name.strip_suffix(".qzeros"));
    paths.filter_map(move |path| {
        let layer = LayerSource::new(checkpoint, path, None);
        let module = config.module(path).ok()?;
        let parsed = GptqLayer::parse(&layer, config).ok()?;
        Some((path.to_owned(), module, parsed))
    })
}
