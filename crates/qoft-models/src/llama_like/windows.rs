//! Sliding windows of the layers.

use qoft_core::Result;

use super::LayerOptions;
use crate::json::Object;
use crate::layer_types;

/// Mistral's and Qwen's window where `config.json` does not mention it.
pub const DEFAULT: usize = 4096;

/// Every layer sees everything.
pub fn none(_json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    Ok(with_rope(vec![None; layers]))
}

/// The same window in all layers; `absent` is that of files that do not mention it.
pub fn everywhere(json: Object, absent: Option<usize>, layers: usize) -> Result<Vec<LayerOptions>> {
    Ok(with_rope(vec![window(json, absent)?; layers]))
}

/// The same window in all layers, if it is in use at all.
pub fn everywhere_if_in_use(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let in_use = json.flag("use_sliding_window")?;
    let window = if in_use {
        window(json, Some(DEFAULT))?
    } else {
        None
    };
    Ok(with_rope(vec![window; layers]))
}

/// Windows in the first, third and so on of the first `max_window_layers` layers.
pub fn in_every_other_first_layer(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let before = json.get("max_window_layers")?.unwrap_or(28_usize);
    let sliding = |layer: usize| layer.is_multiple_of(2) && layer < before;
    selected(json, Some(DEFAULT), layers, sliding).map(with_rope)
}

/// Windows from the layer `max_window_layers` on, as Qwen has them.
pub fn in_later_layers(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let from = json.get("max_window_layers")?.unwrap_or(28_usize);
    selected(json, Some(DEFAULT), layers, |layer| layer >= from).map(with_rope)
}

/// Windows in all layers but every n-th, unless `layer_types` tells the kinds; `absent` is that of files that do
/// not mention it.
pub fn in_all_but_every(
    json: Object,
    n: usize,
    absent: usize,
    layers: usize,
) -> Result<Vec<LayerOptions>> {
    let window = window(json, Some(absent))?;
    let sliding = layer_types::sliding(json, layers, |layer| !(layer + 1).is_multiple_of(n))?;
    let windows = sliding.into_iter().map(|sliding| match (sliding, window) {
        (true, None) => Err(json.error("sliding_window", "is missing")),
        (true, window) => Ok(window),
        (false, _) => Ok(None),
    });
    Ok(with_rope(windows.collect::<Result<_>>()?))
}

fn with_rope(windows: Vec<Option<usize>>) -> Vec<LayerOptions> {
    let layers = windows.into_iter();
    layers
        .map(|window| LayerOptions { window, rope: true })
        .collect()
}

/// The window of the model; `absent` where the key is not in the file at all.
fn window(json: Object, absent: Option<usize>) -> Result<Option<usize>> {
    if json.has("sliding_window") {
        json.size("sliding_window")
    } else {
        Ok(absent)
    }
}

/// Windows where `layer_types` or else `sliding` asks for them, if they are in use at all.
pub fn selected(
    json: Object,
    absent: Option<usize>,
    layers: usize,
    sliding: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let in_use = json.flag("use_sliding_window")?;
    let window = if in_use { window(json, absent)? } else { None };
    let sliding = layer_types::sliding(json, layers, |layer| window.is_some() && sliding(layer))?;
    if window.is_none() && sliding.contains(&true) {
        let reason = "`sliding_attention` needs `use_sliding_window` and `sliding_window`";
        return Err(json.error("layer_types", reason));
    }
    let windows = sliding.into_iter();
    Ok(windows.map(|sliding| window.filter(|_| sliding)).collect())
}
