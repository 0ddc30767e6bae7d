//! Which code search a layer gets.

use std::sync::atomic::{AtomicBool, Ordering};

use qoft_core::{CodeSearch, Grid, Matrix, Result};

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

/// A search that knows afterwards whether a scheme asked it for codes.
pub(super) struct Asked<'a> {
    search: Box<dyn CodeSearch + 'a>,
    asked: AtomicBool,
}

impl<'a> Asked<'a> {
    pub fn new(search: Box<dyn CodeSearch + 'a>) -> Self {
        let asked = AtomicBool::new(false);
        Self { search, asked }
    }

    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl CodeSearch for Asked<'_> {
    fn codes(&self, weight: &Matrix, grid: &dyn Grid) -> Vec<u8> {
        self.asked.store(true, Ordering::Relaxed);
        self.search.codes(weight, grid)
    }
}
