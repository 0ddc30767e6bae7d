//! The feed-forward part of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk};

use crate::json::Object;
use crate::loader::Loader;

/// `w2(silu(w1(x)) · w3(x))`.
#[derive(Module, Debug, Walk)]
pub struct FeedForward {
    w1: Linear,
    w3: Linear,
    w2: Linear,
}

impl FeedForward {
    /// Makes the layers of `[inner, hidden]`.
    pub fn load(loader: &Loader, [inner, hidden]: [usize; 2]) -> Result<Self> {
        let layers = Self {
            w1: loader.linear("w1", [inner, hidden], false)?,
            w3: loader.linear("w3", [inner, hidden], false)?,
            w2: loader.linear("w2", [hidden, inner], false)?,
        };
        loader.feeds("w3", 0, &["w2"]);
        Ok(layers)
    }

    /// The layers on the rows of `x`, `[rows, hidden]`.
    pub fn forward(&self, x: Traced<2>) -> Tensor<2> {
        let inner = Linear::forward_each([&self.w1, &self.w3], x);
        let [gate, up] = inner.map(|x| self.w2.keep(x));
        self.w2.forward(ops::gated(gate, up, Activation::Silu))
    }
}

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
