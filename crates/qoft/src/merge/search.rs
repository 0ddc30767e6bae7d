//! Which code search a layer gets.

use qoft_core::{CodeSearch, Result};

/// Gives each layer its way to choose codes. A [`CodeSearch`] is one for all layers.
pub trait LayerSearch: Sync {
    /// The search for the layer at a module path.
    ///
    /// # Errors
    /// If there is none for this layer, or what it needs cannot be read.
    fn search(&self, layer: &str) -> Result<Box<dyn CodeSearch + '_>>;
}

impl<S: CodeSearch> LayerSearch for S {
    fn search(&self, _layer: &str) -> Result<Box<dyn CodeSearch + '_>> {
        Ok(Box::new(self))
    }
}
