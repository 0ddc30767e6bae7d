//! Whether adapters were trained on the model that they are used with.

use std::path::Path;

use qoft::core::kernels::FloatFormat;
use qoft::core::{Error, QuantizedModel, Registry, read_json};
use qoft::peft::CONFIG;
use qoft::train::TrainError;
use serde_json::Value;

use crate::args::{AdapterArg, LoadArgs, RunOptions};
use crate::print::warnln;

/// Warns of adapters that were trained on a model that was quantized while it was loaded, where this
/// dense one is not, or in another way: by the scheme `scheme` and the options `load`.
pub fn warn_of_others(
    adapters: &[AdapterArg],
    scheme: Option<&str>,
    load: &LoadArgs,
    registry: &Registry,
) {
    let now = how(scheme, load, registry);
    for adapter in adapters {
        let Some((scheme, load)) = recorded(&adapter.folder) else {
            continue;
        };
        if scheme.is_none() && !load.asks() {
            continue;
        }
        let then = how(scheme.as_deref(), &load, registry);
        let differs = match (&now, &then) {
            (None, _) => "which this one is not",
            (Some(now), Some(then)) if now != then => "in another way than this one is",
            // What it was cannot be told: a file of it is gone.
            _ => continue,
        };
        warnln!(
            "{} was trained on a model that was quantized while it was loaded, {differs}; to use what \
             was trained, give: {}",
            adapter.folder.display(),
            flags(scheme.as_deref(), &load)
        );
    }
}

/// The error of an adapter that does not fit `model`, with the model that it was made for, if that is another
/// one.
pub fn with_models(error: anyhow::Error, model: &Path) -> anyhow::Error {
    let known = error.downcast_ref::<Error>();
    let known = known.or_else(|| match error.downcast_ref::<TrainError>()? {
        TrainError::Core(error) => Some(error),
        _ => None,
    });
    // The path is that of the file with the parameters.
    let folder = match known {
        Some(Error::Adapter { path, .. }) => path.parent(),
        _ => None,
    };
    let config = folder.and_then(|folder| read_json(&folder.join(CONFIG)).ok());
    let base = config.and_then(|json| Some(json["base_model_name_or_path"].as_str()?.to_owned()));
    let base = base.filter(|base| !base.is_empty() && Path::new(base) != model);
    match base.zip(folder.map(Path::to_owned)) {
        Some((base, folder)) => error.context(format!(
            "{} was made for the model {base}, and here the model is {}",
            folder.display(),
            model.display()
        )),
        None => error,
    }
}

/// What decides the weights that come out.
fn how(scheme: Option<&str>, load: &LoadArgs, registry: &Registry) -> Option<Value> {
    let deciding = LoadArgs {
        // What weights are computed with does not change them.
        bnb_4bit_compute_dtype: None,
        ..load.clone()
    };
    let quantization = match deciding.quantization(scheme, registry) {
        Ok(quantization) => quantization?,
        // What this build lacks is another way than all that it has.
        Err(error) => {
            let feature = qoft::missing_feature(error.downcast_ref()?)?;
            return Some(serde_json::json!({ "lacking": feature }));
        }
    };
    let options = load.options().ok()?;
    let skips = options.skips.as_deref().or(quantization.skips());
    let model = QuantizedModel::new(options.format.unwrap_or(FloatFormat::F32), skips, &[]);
    Some(serde_json::json!({
        "backend": quantization.backend(),
        "config": quantization.config(&model),
        "dtype": options.format.map(FloatFormat::name),
    }))
}

/// The options by which the model was quantized that the adapter in `folder` was trained on, if its
/// training was one of this program.
fn recorded(folder: &Path) -> Option<(Option<String>, LoadArgs)> {
    // Other programs have files of this name, too.
    let (_, options) = RunOptions::of_run(folder).ok().flatten()?;
    let options = options.into_options();
    let scheme = options.get("quantize").and_then(Value::as_str);
    let scheme = scheme.map(str::to_owned);
    Some((scheme, serde_json::from_value(options.into()).ok()?))
}

/// The options as they are given.
fn flags(scheme: Option<&str>, load: &LoadArgs) -> String {
    let mut flags: Vec<String> = scheme
        .map(|scheme| format!("--load-in {scheme}"))
        .into_iter()
        .collect();
    flags.extend(load.flags());
    flags.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_is_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"model": "m", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": false, "quantize_skip": "lm_head", "quantize_cache": "c"}"#;
        std::fs::write(folder.path().join("training_args.json"), text).unwrap();
        let inside = ["checkpoint-7", "emergency-6-2"].map(|name| folder.path().join(name));
        inside
            .iter()
            .for_each(|folder| std::fs::create_dir(folder).unwrap());
        for folder in [folder.path(), &inside[0], &inside[1]] {
            let (scheme, load) = recorded(folder).unwrap();
            assert_eq!(
                flags(scheme.as_deref(), &load),
                "--load-in-4bit --bnb-4bit-quant-type nf4 --quantize-skip lm_head"
            );
        }
        std::fs::write(
            folder.path().join("training_args.json"),
            r#"{"quantize": "hqq,nbits=4"}"#,
        )
        .unwrap();
        let (scheme, load) = recorded(folder.path()).unwrap();
        assert_eq!(flags(scheme.as_deref(), &load), "--load-in hqq,nbits=4");
        std::fs::write(folder.path().join("training_args.json"), "[1]").unwrap();
        assert!(recorded(folder.path()).is_none());
    }
}
