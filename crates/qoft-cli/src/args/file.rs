//! The file of `--config`, which may be one of another program.

use std::path::Path;

use anyhow::{Context, Result, bail};
use qoft::core::read_text;
use serde_json::{Map, Value};

use super::{foreign, synonyms, unknown};

/// What options of other programs come to.
pub(super) fn translated(foreign: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    for (name, value) in foreign {
        options.extend(foreign::translate(name, value)?.unwrap_or_default());
    }
    Ok(options)
}

/// The options of a file, by the names that they have here. In names `-` and `_` are the same.
pub(super) fn read_yaml(path: &Path, known: &[String]) -> Result<Map<String, Value>> {
    let text = read_text(path)?;
    let value: Value =
        serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("not valid YAML: {e}"))?;
    let Value::Object(given) = value else {
        bail!("expected options as `name: value` lines");
    };
    let (mut options, mut translated) = (Map::new(), Map::new());
    let mut wrong = Vec::new();
    for (key, value) in given {
        let (key, name) = (key.replace('-', "_"), key.replace('_', "-"));
        let own = synonyms::own(&name).map(|own| own.replace('-', "_"));
        let own = own.filter(|own| known.contains(own));
        match own.or_else(|| known.contains(&key).then(|| key.clone())) {
            Some(own) => {
                let value = list(&own, value).with_context(|| format!("`{key}`"))?;
                if options.insert(own.clone(), value).is_some() {
                    bail!("`{key}`: `{own}` is given twice, under two of its names");
                }
            }
            None => match foreign::translate(&name, &value) {
                Err(error) => wrong.push(error.to_string()),
                Ok(Some(options)) => translated.extend(options),
                Ok(None) => wrong.push(format!(
                    "there is no option `{key}`; {}",
                    unknown::key(&key, known)
                )),
            },
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    for (key, value) in translated {
        options.entry(key).or_insert(value);
    }
    Ok(options)
}

/// A list of modules may be written as a list, and one adapter as one.
fn list(key: &str, value: Value) -> Result<Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => bail!("expected a text, found {other}"),
    };
    Ok(match (key, value) {
        ("adapter" | "adapter_option", Value::String(one)) => vec![one].into(),
        ("columns", Value::Object(columns)) => {
            let pairs = columns.iter();
            let pairs = pairs.map(|(name, column)| Ok(format!("{name}={}", text(column)?)));
            pairs.collect::<Result<Vec<_>>>()?.join(",").into()
        }
        (
            "target_modules" | "target_parameters" | "modules_to_save" | "quantize_skip"
            | "report_to" | "loss_type",
            Value::Array(names),
        ) => {
            let names = names.iter().map(text);
            names.collect::<Result<Vec<_>>>()?.join(",").into()
        }
        ("loss_weights", Value::Array(weights)) => {
            let weights = weights.iter().map(Value::to_string);
            weights.collect::<Vec<_>>().join(",").into()
        }
        ("loss_weights", one @ Value::Number(_)) => one.to_string().into(),
        (_, value) => value,
    })
}
