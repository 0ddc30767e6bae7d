//! Writing an adapter folder.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::common::OneOrMany;
use crate::facts::ModelFacts;
use crate::family::AdapterConfig;
use crate::modules::{Modules, module};
use crate::targets;
use crate::tensors::{CONFIG, PREFIX, WEIGHTS};
use qoft_core::{Error, Result, Walk, adapters, write_file};

/// A trained tensor: its name in the file, its shape and its values.
pub type Trained = (String, Vec<usize>, Vec<f32>);

/// The parameters of one adapter as they are saved: name, shape, values.
pub fn trained(model: &impl Walk, adapter: &str) -> Vec<Trained> {
    let mut tensors = Vec::new();
    for (path, layer) in model.layers() {
        let Some(slot) = layer.adapters().get(adapter) else {
            continue;
        };
        let rotation = slot.rotation();
        for param in rotation.iter().flat_map(|rotation| rotation.params()) {
            let name = format!("{PREFIX}{path}.{}", param.name());
            tensors.push((name, param.shape().to_vec(), param.to_vec()));
        }
        // PEFT keeps the layer below that of a rotation.
        let base = if rotation.is_some() {
            "base_layer."
        } else {
            ""
        };
        for own in slot.own() {
            let path = layer.parameter().and_then(module).unwrap_or(&path);
            let name = format!("{PREFIX}{path}.{base}{}", own.name());
            let values = own.tensor().written(own.param().to_vec());
            tensors.push((name, own.tensor().shape.clone(), values));
        }
    }
    tensors
}

/// The targets of an adapter's file: PEFT has to understand them, which knows fewer defaults.
fn written_targets(
    model: &impl Walk,
    config: &dyn AdapterConfig,
    adapter: &str,
) -> Result<OneOrMany> {
    let layers = model.layers();
    let rotated = layers.iter().filter(|(_, layer)| {
        let slot = layer.adapters().get(adapter);
        slot.is_some_and(|slot| slot.rotation().is_some())
    });
    let rotated = rotated.map(|(path, _)| path.as_str()).collect();
    targets::written(config.common(), &Modules::of(model, ""), &rotated)
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` of one adapter into an existing
/// folder.
///
/// # Errors
/// If there is no such adapter, the folder cannot be written, or a value is not finite: then
/// nothing is written.
pub fn save(
    model: &impl Walk,
    config: &dyn AdapterConfig,
    adapter: &str,
    folder: &Path,
) -> Result<()> {
    save_for(model, ModelFacts::NONE, config, adapter, folder)
}

/// As [`save`], for a model of which something is known: if transformers may load it alone or as a part,
/// each tensor has the names of both.
///
/// # Errors
/// As [`save`].
pub fn save_for(
    model: &impl Walk,
    facts: ModelFacts,
    config: &dyn AdapterConfig,
    adapter: &str,
    folder: &Path,
) -> Result<()> {
    adapters::expect(model, adapter)?;
    let tensors = trained(model, adapter);
    let file = folder.join(WEIGHTS);
    if let Some((name, ..)) = tensors
        .iter()
        .find(|(.., v)| v.iter().any(|v| !v.is_finite()))
    {
        let reason = format!("`{name}` has values that are infinite or not a number");
        return Err(Error::Adapter { path: file, reason });
    }
    let alone = |(name, shape, values): &Trained| {
        let name = facts.name_alone(name.strip_prefix(PREFIX)?)?;
        Some((format!("{PREFIX}{name}"), shape.clone(), values.clone()))
    };
    let alone: Vec<Trained> = tensors.iter().filter_map(alone).collect();
    let tensors = tensors.into_iter().chain(alone);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .map(|(n, s, v)| (n, s, v.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes fit the shape");
        (name.as_str(), view)
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let data = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(&file, e))?;
    let path = folder.join(CONFIG);
    let targets = written_targets(model, config, adapter)?;
    let mut config = config.to_json();
    config["target_modules"] = serde_json::to_value(targets).map_err(|e| Error::file(&path, e))?;
    config["inference_mode"] = true.into();
    // In the order in which PEFT has them.
    config.sort_all_objects();
    let mut text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(&path, e))?;
    text.push('\n');
    write_file(&file, &data)?;
    write_file(&path, text.as_bytes())
}
