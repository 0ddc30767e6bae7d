//! How the weights of a group are quantized: the library's `QuantizationArgs`.

use qoft_scheme::{Keys, Result};
use serde_json::Value;

/// What a quantized weight is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Signed integers of so many bits, 1 to 8, with zero points if they are not symmetric.
    Integers {
        /// Width of a code.
        bits: u32,
        /// Whether all zero points are 0.
        symmetric: bool,
    },
    /// 8-bit floats (E4M3).
    Fp8,
    /// 4-bit floats (E2M1).
    Fp4,
}

/// Which weights share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All of them.
    Tensor,
    /// Those of a row.
    Channel,
    /// So many beside each other in a row.
    Group(usize),
    /// So many rows and columns.
    Block([usize; 2]),
}

/// How the weights of a group are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightScheme {
    /// What a weight is made of.
    pub numbers: Numbers,
    /// Which weights share a scale.
    pub strategy: Strategy,
    /// Groups follow the order of activations, so that only an index can tell them.
    pub indexed: bool,
}

impl WeightScheme {
    /// Reads the arguments.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or the library has no such scheme.
    pub fn read(keys: &Keys) -> Result<Self> {
        let bits = keys.get::<u32>("num_bits")?.unwrap_or(8);
        let symmetric = keys.flag("symmetric", true)?;
        let float = keys.choice("type", &[("int", false), ("float", true)])?;
        let numbers = match (float.unwrap_or(false), bits) {
            (false, 1..=8) => Numbers::Integers { bits, symmetric },
            (true, 8) => Numbers::Fp8,
            (true, 4) => Numbers::Fp4,
            (float, _) => {
                let widths = if float { "4 or 8" } else { "1 to 8" };
                let reason = format!("expected {widths} bits for this type, found {bits}");
                return Err(keys.error("num_bits", reason));
            }
        };
        let order = keys.value("actorder");
        let named = |order: &Value| {
            let name = order.as_str().map(str::to_lowercase);
            matches!(name.as_deref(), Some("group" | "dynamic")) || order == &Value::Bool(true)
        };
        Ok(Self {
            numbers,
            strategy: Strategy::read(keys)?,
            indexed: order.is_some_and(named),
        })
    }
}

impl Strategy {
    fn read(keys: &Keys) -> Result<Self> {
        let size = keys.group_size(&["group_size"])?;
        let block = block_structure(keys)?;
        let positive = size.filter(|&size| size != usize::MAX);
        let Some(strategy) = keys.get::<String>("strategy")? else {
            return Ok(match (positive, size) {
                (Some(size), _) => Self::Group(size),
                (None, Some(_)) => Self::Channel,
                (None, None) => Self::Tensor,
            });
        };
        match (strategy.to_lowercase().as_str(), positive, block) {
            ("tensor", None, _) => Ok(Self::Tensor),
            ("channel", None, _) => Ok(Self::Channel),
            ("group" | "tensor_group", Some(size), _) => Ok(Self::Group(size)),
            ("block", _, Some(block)) => Ok(Self::Block(block)),
            ("group" | "tensor_group", None, _) => {
                Err(keys.error("group_size", "a group needs a positive size"))
            }
            ("block", _, None) => Err(keys.error("block_structure", "blocks need two sizes")),
            ("tensor" | "channel", Some(size), _) => {
                let reason = format!("a size of {size} does not fit the strategy {strategy}");
                Err(keys.error("group_size", reason))
            }
            _ => {
                let reason = format!(
                    "expected tensor, channel, group, tensor_group or block for weights, found {strategy}"
                );
                Err(keys.error("strategy", reason))
            }
        }
    }

    /// Rows and columns that share a scale; [`usize::MAX`] stands for all.
    pub fn blocks(self) -> [usize; 2] {
        match self {
            Self::Tensor => [usize::MAX; 2],
            Self::Channel => [1, usize::MAX],
            Self::Group(size) => [1, size],
            Self::Block(sizes) => sizes,
        }
    }

    /// The shape of the scales of a weight of `[out_features, in_features]`.
    pub fn scale_shape(self, [n, k]: [usize; 2]) -> Vec<usize> {
        match self {
            Self::Tensor => vec![1],
            Self::Channel => vec![n, 1],
            Self::Group(size) => vec![n, k.div_ceil(size)],
            Self::Block([rows, cols]) => vec![n.div_ceil(rows), k.div_ceil(cols)],
        }
    }
}

/// `[128, 128]`, or as old files have it, `"128x128"`.
fn block_structure(keys: &Keys) -> Result<Option<[usize; 2]>> {
    const KEY: &str = "block_structure";
    let Some(value) = keys.value(KEY) else {
        return Ok(None);
    };
    let sizes: Option<Vec<usize>> = match value.as_str() {
        Some(text) => text.split('x').map(|size| size.parse().ok()).collect(),
        None => keys.get(KEY)?,
    };
    match sizes.as_deref() {
        Some(&[rows, cols]) if rows > 0 && cols > 0 => Ok(Some([rows, cols])),
        _ => Err(keys.error(KEY, format!("expected two positive sizes, found {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strategy(value: Value) -> Result<Strategy> {
        WeightScheme::read(&Keys::new("c", value)).map(|scheme| scheme.strategy)
    }

    #[test]
    fn a_strategy_that_is_not_named_follows_from_the_group_size() {
        assert_eq!(strategy(json!({})).unwrap(), Strategy::Tensor);
        assert_eq!(
            strategy(json!({"group_size": -1})).unwrap(),
            Strategy::Channel
        );
        assert_eq!(
            strategy(json!({"group_size": 64})).unwrap(),
            Strategy::Group(64)
        );
        let channel = json!({"strategy": "channel", "group_size": -1});
        assert_eq!(strategy(channel).unwrap(), Strategy::Channel);
        for sizes in [json!([2, 4]), json!("2x4")] {
            let block = json!({"strategy": "block", "block_structure": sizes});
            assert_eq!(strategy(block).unwrap(), Strategy::Block([2, 4]));
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (value, key) in [
            (json!({"strategy": "group"}), "group_size"),
            (
                json!({"strategy": "tensor", "group_size": 32}),
                "group_size",
            ),
            (json!({"strategy": "block"}), "block_structure"),
            (json!({"strategy": "token"}), "strategy"),
            (json!({"group_size": 0}), "group_size"),
            (json!({"num_bits": 9}), "num_bits"),
            (json!({"num_bits": 6, "type": "float"}), "num_bits"),
            (json!({"type": "bool"}), "type"),
            (
                json!({"strategy": "block", "block_structure": "2x"}),
                "block_structure",
            ),
        ] {
            let error = strategy(value).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
