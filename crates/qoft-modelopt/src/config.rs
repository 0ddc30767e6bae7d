//! What `quantization_config` or `hf_quant_config.json` say.

use qoft_scheme::{Keys, Result};
use serde_json::Value;

/// The file in which older exports have their configuration; newer ones repeat it in `config.json`.
pub const FILE: &str = "hf_quant_config.json";
/// Input features that share a scale of NVFP4, unless the configuration or the scales say another number.
pub const NVFP4_GROUP: usize = 16;
/// What the library is called.
pub const NAME: &str = "modelopt";

/// Whether a configuration is this scheme's.
pub fn is_modelopt(keys: &Keys) -> bool {
    match keys.method() {
        // Some readers want the format in the name: `modelopt_fp4`.
        Some(method) => method.starts_with(NAME),
        None => {
            let producer = keys.object("producer");
            let name = producer.as_ref().and_then(|keys| keys.value("name"));
            let inside = keys.object("quantization");
            name.and_then(Value::as_str) == Some(NAME)
                || inside.is_some_and(|keys| keys.value("quant_algo").is_some())
        }
    }
}

/// The settings: the file has them one level deeper.
pub fn settings(keys: &Keys) -> Keys {
    keys.object("quantization").unwrap_or_else(|| keys.clone())
}

/// Modules that stay dense, by the name of either file.
///
/// # Errors
/// If it is no list of names.
pub fn skips(keys: &Keys) -> Result<Option<Vec<String>>> {
    Ok(keys
        .first(&["ignore", "exclude_modules"])?
        .map(|(_, skips)| skips))
}

/// How many input features share a scale of NVFP4 in the module at `path`: what stands there for the
/// module, else for all, else for the first group of weights with 4 bits. `None` where nothing is said of it.
///
/// # Errors
/// If it is no positive number.
pub fn group_size(keys: &Keys, path: &str) -> Result<Option<usize>> {
    const KEY: &str = "group_size";
    let keys = settings(keys);
    let module = keys
        .object("quantized_layers")
        .and_then(|keys| keys.object(path));
    let groups = keys.object("config_groups");
    let groups = groups.iter().flat_map(|groups| {
        let group = |(name, _): (&str, &Value)| groups.object(name)?.object("weights");
        groups.entries().filter_map(group).collect::<Vec<_>>()
    });
    let is_fp4 = |keys: &Keys| keys.value("num_bits").and_then(Value::as_u64) == Some(4);
    let fp4 = groups.into_iter().find(is_fp4);
    for keys in [module, Some(keys), fp4].into_iter().flatten() {
        match keys.get::<usize>(KEY)? {
            None => {}
            Some(0) => return Err(keys.error(KEY, "expected more than 0, found 0")),
            size => return Ok(size),
        }
    }
    Ok(None)
}
