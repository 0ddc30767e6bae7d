//! What a checkpoint consists of.

use std::collections::BTreeSet;

use qoft_core::{Purpose, Result, Schemes};
use qoft_models::ModelFolder;
use serde::Serialize;

use crate::layers::{ModelLayers, is_foreign_layer};
use crate::owners::Owners;

/// One linear layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerReport {
    /// Module path.
    pub name: String,
    /// The backend that claims it.
    pub backend: &'static str,
    /// Backends that claim it too, but are asked later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_claimed_by: Vec<&'static str>,
    /// Number format: `nf4`, `int8`, `bf16` …
    pub format: String,
    /// Bits of a code.
    pub bits: u32,
    /// Weights that share a scale.
    pub group_size: Option<usize>,
    /// Input features.
    pub in_features: usize,
    /// Output features.
    pub out_features: usize,
    /// Bytes in memory: codes, scales and tables.
    pub packed_bytes: usize,
}

/// A checkpoint at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// `model_type` of `config.json`.
    pub model_type: Option<String>,
    /// Why the model cannot be computed, if it cannot; its layers are known all the same.
    pub unsupported: Option<String>,
    /// `quant_method` of the quantization configuration.
    pub quant_method: Option<String>,
    /// The linear layers, and embedding tables that are quantized.
    pub layers: Vec<LayerReport>,
    /// Values of all linear layers, counted as if nothing were packed.
    pub linear_parameters: usize,
    /// Values of everything else: embeddings, norms, biases.
    pub other_parameters: usize,
    /// Bytes of all linear layers in memory.
    pub packed_bytes: usize,
    /// Bytes of the files.
    pub file_bytes: u64,
}

/// Loads and validates each linear layer, one after another.
///
/// # Errors
/// If a layer is damaged or claimed by no backend.
pub fn inspect(folder: &ModelFolder, schemes: &Schemes) -> Result<Inspection> {
    let ModelLayers {
        layers: mut found,
        packed,
    } = ModelLayers::find(folder, schemes)?;
    let checkpoint = folder.checkpoint();
    found.retain(|layer| !is_foreign_layer(folder, layer));
    let mut layers = Vec::with_capacity(found.len());
    for layer in &found {
        let weight = layer.load(Purpose::Forward)?.weight;
        let ([out_features, in_features], info) = (weight.shape(), weight.info());
        layers.push(LayerReport {
            name: layer.path().to_owned(),
            backend: layer.backend(),
            also_claimed_by: schemes.claimants(&layer.source()).split_off(1),
            format: info.format,
            bits: info.bits,
            group_size: info.group_size,
            in_features,
            out_features,
            packed_bytes: weight.packed_bytes(),
        });
    }
    let packed_values = packed.iter().map(|p| p.shape.iter().product::<usize>());
    let mut other_parameters = packed_values.sum();
    let parts: BTreeSet<&str> = packed
        .iter()
        .flat_map(|p| &p.parts)
        .map(String::as_str)
        .collect();
    let owners = Owners::new(&found);
    for name in checkpoint.names() {
        let is_other = owners.of(name).is_none() || name.ends_with(".bias");
        if is_other && !parts.contains(name) {
            other_parameters += checkpoint.tensor(name)?.elements();
        }
    }
    let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(Into::into);
    let sizes = checkpoint
        .files()
        .filter_map(|file| std::fs::metadata(file).ok());
    let unsupported = folder.spec().err().map(|error| error.to_string());
    Ok(Inspection {
        model_type: text(checkpoint.config().get("model_type")),
        unsupported,
        quant_method: schemes.quant_method().map(Into::into),
        linear_parameters: layers.iter().map(|l| l.in_features * l.out_features).sum(),
        other_parameters,
        packed_bytes: layers.iter().map(|l| l.packed_bytes).sum(),
        file_bytes: sizes.map(|m| m.len()).sum(),
        layers,
    })
}
