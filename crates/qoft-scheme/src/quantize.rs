//! Quantizing a dense weight with a backend of a registry.

use crate::checkpoint::NewTensor;
use crate::dense_layer::DenseLayer;
use crate::error::Result;
use crate::grid::CodeSearch;
use crate::keys::Keys;
use crate::registry::Registry;

impl Registry {
    /// Quantizes a dense weight with the backend of a name, by the keys that a
    /// `quantization_config` of its scheme has. Returns all tensors that such a layer has in a
    /// checkpoint, but its bias.
    ///
    /// # Errors
    /// If there is no such backend, it cannot do that, the settings are not its own, or they do not
    /// fit the weight.
    pub fn quantize(
        &self,
        backend: &str,
        dense: DenseLayer,
        settings: &Keys,
        search: &dyn CodeSearch,
    ) -> Result<Vec<NewTensor>> {
        let backend = self.backend(backend)?;
        let dense = dense.for_backend(backend.name());
        if !backend.capabilities().quantize {
            return Err(dense.incapable());
        }
        if !dense.weight.is_finite() {
            return Err(dense.error("the weight has values that are infinite or not a number"));
        }
        if dense.weight.values.is_empty() {
            return Err(dense.error("the weight is empty"));
        }
        let tensors = backend.quantize(&dense, settings, search);
        tensors.map_err(|e| e.of_layer(dense.path, backend.name()).of_writing())
    }
}
