//! A layer under test.

use qoft_core::{Checkpoint, LayerSource, LoadOptions, LoadedLinear, Purpose, Registration};

/// A layer of a checkpoint that the backend under test claims.
pub(crate) struct Layer<'a> {
    pub registration: &'static Registration,
    pub checkpoint: &'a Checkpoint,
    pub path: &'a str,
}

impl Layer<'_> {
    /// Loads the layer.
    ///
    /// # Panics
    /// If that fails.
    pub fn load(&self, purpose: Purpose) -> LoadedLinear {
        let options = LoadOptions {
            purpose,
            ..LoadOptions::default()
        };
        let source = LayerSource::new(self.checkpoint, self.path);
        let loaded = self.registration.backend.load(&source, &options);
        loaded.unwrap_or_else(|e| panic!("{self}: {e}"))
    }
}

impl std::fmt::Display for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.checkpoint.dir().display(), self.path)
    }
}
