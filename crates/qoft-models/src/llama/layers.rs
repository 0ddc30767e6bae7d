//! What differs between the layers of one model: attention windows and rotary positions.

use qoft_core::Result;

use super::config::Family;
use crate::json::Object;

/// Mistral's and Qwen's window where `config.json` does not mention it.
const DEFAULT_WINDOW: usize = 4096;

/// Options of a single layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerConfig {
    /// How many keys a query sees at most, itself included; `None`: all before it.
    pub window: Option<usize>,
    /// Whether queries and keys carry rotary positions.
    pub rope: bool,
}

impl LayerConfig {
    /// The options of all layers.
    pub(crate) fn parse(json: Object, family: Family, layers: usize) -> Result<Vec<Self>> {
        let rope = rope_layers(json, family, layers)?;
        let windows = windows(json, family, &rope)?;
        let pairs = windows.into_iter().zip(rope);
        Ok(pairs.map(|(window, rope)| Self { window, rope }).collect())
    }
}

/// SmolLM3's `no_rope_layers`, in which a 1 means that the layer does use rotary positions.
fn rope_layers(json: Object, family: Family, layers: usize) -> Result<Vec<bool>> {
    if family != Family::SmolLm3 {
        return Ok(vec![true; layers]);
    }
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

fn windows(json: Object, family: Family, rope: &[bool]) -> Result<Vec<Option<usize>>> {
    let layers = rope.len();
    match family {
        Family::Llama | Family::Olmo2 | Family::Granite => Ok(vec![None; layers]),
        Family::Mistral => Ok(vec![window(json, Some(DEFAULT_WINDOW))?; layers]),
        Family::Phi3 => Ok(vec![window(json, None)?; layers]),
        Family::Qwen2 | Family::Qwen3 => {
            let from = json.get("max_window_layers")?.unwrap_or(28_usize);
            selected(json, Some(DEFAULT_WINDOW), layers, |layer| layer >= from)
        }
        Family::SmolLm3 => selected(json, None, layers, |layer| !rope[layer]),
    }
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
fn selected(
    json: Object,
    absent: Option<usize>,
    layers: usize,
    sliding: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let in_use = json.flag("use_sliding_window")?;
    let window = if in_use { window(json, absent)? } else { None };
    let Some(types) = json.get::<Vec<String>>("layer_types")? else {
        let layers = 0..layers;
        return Ok(layers.map(|l| window.filter(|_| sliding(l))).collect());
    };
    if types.len() != layers {
        let reason = format!("has {} entries for {layers} layers", types.len());
        return Err(json.error("layer_types", reason));
    }
    let of_type = |kind: String| match (kind.as_str(), window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => Err(json.error(
            "layer_types",
            "`sliding_attention` needs `use_sliding_window` and `sliding_window`",
        )),
        _ => Err(json.error(
            "layer_types",
            format!("`{kind}` is not supported; supported are full_attention, sliding_attention"),
        )),
    };
    types.into_iter().map(of_type).collect()
}
