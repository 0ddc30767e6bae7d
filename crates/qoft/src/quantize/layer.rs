//! Quantizing layers of a dense checkpoint.

use qoft_core::{BackendOptions, CodeSearch, Keys, Matrix, NewTensor, Purpose, Registry, Result};
use qoft_models::ModelFolder;
use serde_json::Value;

/// The tensors, but the bias, that the dense layer at module path `path` has in another scheme: that
/// of the backend `backend`, by the keys that a `quantization_config` of the scheme has. `search`
/// chooses the codes once the scheme has found its scales.
///
/// # Errors
/// If the layer is missing or not dense, there is no such backend or it cannot quantize dense
/// weights, or the settings are not its own or do not fit the layer.
pub fn quantize_layer(
    folder: &ModelFolder,
    path: &str,
    registry: &Registry,
    backend: &str,
    settings: &Value,
    search: &dyn CodeSearch,
) -> Result<Vec<NewTensor>> {
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default())?;
    let layer = schemes.find(folder.source(path))?;
    let weight = layer.load(Purpose::Dequantize)?.weight;
    let format = weight.info().dense;
    let format = format.ok_or_else(|| layer.source().error("it is quantized already"))?;
    let settings = Keys::new("settings", settings.clone());
    let quantization = registry.quantization(backend, &settings)?;
    quantization.quantize(path, Matrix::decode(&*weight), format, search)
}
