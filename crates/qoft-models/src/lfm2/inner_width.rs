//! The width of the feed-forward layers.

use qoft_core::Result;

use crate::json::Object;

/// The width inside: `block_ff_dim` or `intermediate_size`, of which two thirds are taken, times a
/// factor and rounded up to a multiple, unless `block_auto_adjust_ff_dim` says otherwise.
pub fn inner_width(json: Object) -> Result<usize> {
    let key = match json.has("block_ff_dim") {
        true => "block_ff_dim",
        false => "intermediate_size",
    };
    let width = json.require_size(key)?;
    if !json.get("block_auto_adjust_ff_dim")?.unwrap_or(false) {
        return Ok(width);
    }
    // In floating point, as in transformers.
    let mut width = (2.0 * width as f64 / 3.0) as usize;
    if let Some(factor) = json.positive("block_ffn_dim_multiplier")? {
        let multiple = json.require_size("block_multiple_of")?;
        let scaled = factor * width as f64;
        if scaled > f64::from(i32::MAX) {
            let reason = format!("{factor} makes the feed-forward layers too wide");
            return Err(json.error("block_ffn_dim_multiplier", reason));
        }
        width = (scaled as usize).div_ceil(multiple) * multiple;
    }
    match width {
        0 => Err(json.error(key, "leaves nothing of the feed-forward layers")),
        _ => Ok(width),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn widths_are_those_of_transformers() {
        let width = |config| inner_width(Object::root(&config)).ok();
        let config = json!({"intermediate_size": 6656, "block_auto_adjust_ff_dim": true,
            "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256});
        assert_eq!(width(config), Some(4608));
        let config = json!({"intermediate_size": 1, "block_ff_dim": 100,
            "block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": null});
        assert_eq!(width(config), Some(66));
        let config = json!({"intermediate_size": 100, "block_auto_adjust_ff_dim": false});
        assert_eq!(width(config), Some(100));
        let config = json!({"intermediate_size": 1, "block_auto_adjust_ff_dim": true});
        assert_eq!(width(config), None);
    }
}
