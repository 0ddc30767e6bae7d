//! The file of `--config`, which may be one of another program.

use std::path::Path;

use anyhow::{Context, Result, bail};
use qoft::core::read_text;
use serde_json::{Map, Value};

use super::{DataArg, foreign, synonyms, unknown};

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
        // A name without a value asks for nothing.
        if value.is_null() {
            continue;
        }
        if let Some(family) = family(&key, &value)? {
            translated.insert("peft_type".into(), family.into());
            continue;
        }
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

/// The family of adapters that axolotl's `adapter` names; here a path stands there.
fn family(key: &str, value: &Value) -> Result<Option<String>> {
    let name = value.as_str().filter(|_| key == "adapter");
    let Some(name) = name.filter(|name| !Path::new(name).exists()) else {
        return Ok(None);
    };
    match name.to_lowercase().as_str() {
        family @ ("boft" | "hra" | "oft") => Ok(Some(family.to_owned())),
        "lora" | "qlora" => bail!(
            "`adapter: {name}`: qoft trains rotations, not LoRA: oft, boft or hra; a quantized model is asked for \
             by --load-in-4bit and the like"
        ),
        _ => Ok(None),
    }
}

/// A value as this program has it: a list of modules may be written as a list, and one adapter as one. YAML reads
/// `no` as false, and in other programs there are numbers that mean none.
fn list(key: &str, value: Value) -> Result<Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => bail!("expected a text, found {other}"),
    };
    Ok(match (key, value) {
        ("adapter" | "adapter_option", Value::String(one)) => vec![one].into(),
        ("eval_strategy" | "save_strategy", Value::Bool(false)) => "no".into(),
        ("max_steps", Value::Number(steps)) if steps.as_i64() == Some(-1) => Value::Null,
        ("val_size", Value::Number(size)) if size.as_f64() == Some(0.0) => Value::Null,
        ("data", Value::String(text)) => DataArg::split(vec![text]).into(),
        ("columns", Value::Object(columns)) => {
            let pairs = columns.iter();
            let pairs = pairs.map(|(name, column)| Ok(format!("{name}={}", text(column)?)));
            pairs.collect::<Result<Vec<_>>>()?.join(",").into()
        }
        (
            "exclude_modules" | "target_modules" | "target_parameters" | "modules_to_save"
            | "quantize_skip" | "report_to" | "loss_type",
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::TrainArgs;
    use crate::args::values::object;

    fn read(text: &str) -> Result<Value> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let known = object(&TrainArgs::default())?;
        let known: Vec<String> = known.into_iter().map(|(key, _)| key).collect();
        Ok(read_yaml(file.path(), &known)?.into())
    }

    #[test]
    fn values_of_other_programs_are_read() {
        for (text, expected) in [
            ("eval_strategy: no\n", json!({"eval_strategy": "no"})),
            (
                "evaluation_strategy: epoch\n",
                json!({"eval_strategy": "epoch"}),
            ),
            ("save_strategy: no\n", json!({"save_strategy": "no"})),
            ("max_steps: -1\n", json!({"max_steps": null})),
            ("val_size: 0\n", json!({"val_size": null})),
            ("dataset: a, b\n", json!({"data": ["a", "b"]})),
            (
                "debug:\nfsdp_config:\nxformers_attention:\nno_such_thing:\n",
                json!({}),
            ),
            ("adapter: oft\n", json!({"peft_type": "oft"})),
            ("adapter: runs/7\n", json!({"adapter": ["runs/7"]})),
            ("rl: dpo\n", json!({"stage": "dpo"})),
            ("iters: 5\n", json!({"max_steps": 5})),
            ("warmup_steps: 0.1\n", json!({"warmup_steps": 0.1})),
            ("warmup_steps: 7\n", json!({"warmup_steps": 7})),
            ("adapter_path: a\n", json!({"output": "a"})),
            ("adapter_name_or_path: a\n", json!({"start_from": "a"})),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for (text, says) in [
            ("adapter: qlora\n", "not LoRA"),
            ("special_tokens: {pad_token: x}\n", "tokenizer_config.json"),
            ("no_such_thing: 1\n", "no option `no_such_thing`"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
