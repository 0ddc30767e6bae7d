//! Which code search a layer gets.

use std::sync::atomic::{AtomicBool, Ordering};

use qoft_calibrate::Hessian;
use qoft_core::{CodeSearch, Grid, Matrix, Result, ScaleSearch, ScaledCodes, ScaledGrid};

/// Gives each layer its way to choose codes. A [`CodeSearch`] is one for all layers.
pub trait LayerSearch: Sync {
    /// The search for the layer at a module path. Its weight is a changed `before`, if that is known.
    ///
    /// # Errors
    /// If there is none for this layer, or what it needs cannot be read.
    fn search(&self, layer: &str, before: Option<&Matrix>) -> Result<Box<dyn CodeSearch + '_>>;

    /// What is known of the layer's inputs, by which a merge tells how much of a change its outputs
    /// show. Weights are then those that layers compute with, not those that their schemes write out
    /// where these differ.
    ///
    /// # Errors
    /// If it cannot be read.
    fn inputs(&self, _layer: &str) -> Result<Option<Hessian>> {
        Ok(None)
    }
}

impl<S: CodeSearch> LayerSearch for S {
    fn search(&self, _layer: &str, _before: Option<&Matrix>) -> Result<Box<dyn CodeSearch + '_>> {
        Ok(Box::new(self))
    }
}

/// A search that knows afterwards whether a scheme asked it for codes.
pub(crate) struct Asked<'a> {
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

    fn with_scales(&self) -> Option<&dyn ScaleSearch> {
        self.search.with_scales().map(|_| self as _)
    }
}

impl ScaleSearch for Asked<'_> {
    fn codes_and_scales(&self, weight: &Matrix, grid: &dyn ScaledGrid) -> ScaledCodes {
        self.asked.store(true, Ordering::Relaxed);
        match self.search.with_scales() {
            Some(search) => search.codes_and_scales(weight, grid),
            None => ScaledCodes::on(grid, self.search.codes(weight, grid), weight.shape[0]),
        }
    }
}
