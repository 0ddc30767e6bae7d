//! Options that are read together, of which an error names the one that is wrong.

use anyhow::{Result, anyhow};
use qoft::core::unfit;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::values::text;

/// What `given` options say beside `defaults`.
///
/// # Errors
/// The error names the first option with a value that is impossible by itself.
pub(super) fn read<T: DeserializeOwned>(
    defaults: &Map<String, Value>,
    given: &Map<String, Value>,
) -> Result<T> {
    let with = |more: Map<String, Value>| {
        let all = defaults.clone().into_iter().chain(more);
        serde_json::from_value::<T>(Value::Object(all.collect()))
    };
    with(given.clone()).map_err(|error| {
        for (name, value) in given {
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            if let Err(error) = with(alone) {
                let name = name.replace('_', "-");
                let reason = unfit(&error).unwrap_or_else(|| error.to_string());
                return anyhow!("--{name} {}: {reason}", text(value));
            }
        }
        error.into()
    })
}
