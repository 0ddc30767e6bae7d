//! Which layers of a model see a window only.

use qoft_core::Result;

use crate::json::Object;

/// For each of `layers` layers, whether `layer_types` has `sliding_attention` for it, not
/// `full_attention`; in files without that key `default` tells, by the number of the layer.
///
/// # Errors
/// If there are other words, or another number of them.
pub fn sliding(json: Object, layers: usize, default: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let Some(types) = json.get::<Vec<String>>("layer_types")? else {
        return Ok((0..layers).map(default).collect());
    };
    if types.len() != layers {
        let reason = format!("has {} entries for {layers} layers", types.len());
        return Err(json.error("layer_types", reason));
    }
    let is_sliding = |kind: String| match kind.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        _ => {
            let known = ["full_attention", "sliding_attention"];
            Err(json.unsupported("layer_types", &kind, known))
        }
    };
    types.into_iter().map(is_sliding).collect()
}
