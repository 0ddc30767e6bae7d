//! AutoRound's own files with floats: the tensors are those of compressed-tensors, but for scales by row, which have
//! one dimension; the configuration is AutoRound's.

use qoft_scheme::{Keys, Result};
use serde_json::{Map, Value, json};

const METHODS: [&str; 2] = ["auto-round", "intel/auto-round"];
const EXTRA: &str = "extra_config";
/// What stands for a layer that is not quantized.
const DENSE_BITS: usize = 16;
/// Beginnings of the names of kinds of numbers.
const FLOATS: [&str; 3] = ["nv_fp", "mx_fp", "fp"];

/// What the library would say of such files; `None` if they are of another method, or hold integers.
///
/// # Errors
/// If a value is of the wrong kind.
pub fn translated(keys: &Keys) -> Result<Option<Keys>> {
    let ours = keys.method().is_some_and(|m| METHODS.contains(&m.as_str()));
    let Some(common) = ours.then(|| Settings::read(keys, None)).transpose()? else {
        return Ok(None);
    };
    if !FLOATS.iter().any(|kind| common.kind.starts_with(kind)) {
        return Ok(None);
    }
    let mut groups = Map::new();
    groups.insert("group_0".to_owned(), common.group("Linear"));
    if let Some(extra) = keys.object(EXTRA) {
        for (name, _) in extra.entries() {
            let Some(own) = extra.object(name) else {
                return Err(extra.error(name, "expected an object"));
            };
            let own = Settings::read(&own, Some(&common))?;
            if own.bits < DENSE_BITS {
                groups.insert(name.to_owned(), own.group(name));
            }
        }
    }
    let value = json!({"config_groups": groups});
    Ok(Some(Keys::new("quantization_config", value)))
}

/// How a layer is quantized, in AutoRound's words.
struct Settings {
    kind: String,
    bits: usize,
    /// A size, −1 for rows, 0 for the whole weight, or two sizes of blocks.
    group_size: Value,
}

impl Settings {
    /// Reads the keys; what is absent is as in `common`.
    fn read(keys: &Keys, common: Option<&Self>) -> Result<Self> {
        let kind = keys.get("data_type")?;
        let bits = keys.get("bits")?;
        let size = keys.value("group_size").cloned();
        Ok(Self {
            kind: kind.unwrap_or_else(|| common.map_or("int".to_owned(), |c| c.kind.clone())),
            bits: bits.unwrap_or_else(|| common.map_or(4, |c| c.bits)),
            group_size: size
                .unwrap_or_else(|| common.map_or(Value::Null, |c| c.group_size.clone())),
        })
    }

    /// A group of the library's configuration.
    fn group(&self, target: &str) -> Value {
        let size = self.group_size.as_i64();
        let more = match (&self.group_size, size) {
            (Value::Array(_), _) => {
                json!({"strategy": "block", "block_structure": self.group_size})
            }
            (_, Some(size)) if size > 0 => json!({"strategy": "group", "group_size": size}),
            (_, Some(0)) => json!({"strategy": "tensor"}),
            _ => json!({"strategy": "channel"}),
        };
        let mut weights = json!({"num_bits": self.bits, "type": "float"});
        if let (Some(weights), Value::Object(more)) = (weights.as_object_mut(), more) {
            weights.extend(more);
        }
        json!({"targets": [target], "weights": weights})
    }
}
