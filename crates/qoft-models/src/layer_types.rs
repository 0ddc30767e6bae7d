//! The kinds of a model's layers.

use qoft_core::Result;

use crate::json::Object;

/// The kind that `layer_types` has for each of `layers` layers, one of those that are `known`; in files
/// without that key `default` tells, by the number of the layer.
///
/// # Errors
/// If there are other words, or another number of them.
pub fn kinds<T: Copy>(
    json: Object,
    layers: usize,
    known: &[(&str, T)],
    default: impl Fn(usize) -> T,
) -> Result<Vec<T>> {
    let Some(types) = json.get::<Vec<String>>("layer_types")? else {
        return Ok((0..layers).map(default).collect());
    };
    if types.len() != layers {
        let reason = format!("has {} entries for {layers} layers", types.len());
        return Err(json.error("layer_types", reason));
    }
    let kind = |word: String| match known.iter().find(|(known, _)| *known == word) {
        Some((_, kind)) => Ok(*kind),
        None => {
            let known = known.iter().map(|(known, _)| *known);
            Err(json.unsupported("layer_types", &word, known))
        }
    };
    types.into_iter().map(kind).collect()
}

/// For each of `layers` layers, whether it sees a window only: whether `layer_types` has
/// `sliding_attention` for it, not `full_attention`; see [`kinds`].
///
/// # Errors
/// As [`kinds`].
pub fn sliding(json: Object, layers: usize, default: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let known = [("full_attention", false), ("sliding_attention", true)];
    kinds(json, layers, &known, default)
}
