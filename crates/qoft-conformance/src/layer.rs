//! A layer under test.

use std::path::Path;

use qoft_core::{
    BackendOptions, Checkpoint, ClaimedLayer, LayerSource, LoadedLinear, Purpose, Registration,
    Registry, Schemes,
};

/// A registry of one backend.
///
/// # Panics
/// If that cannot be.
pub(crate) fn alone(registration: &Registration) -> Registry {
    Registry::new([registration]).unwrap_or_else(|e| panic!("{e}"))
}

/// The name of the one backend of a registry.
///
/// # Panics
/// If there is none.
pub(crate) fn only_name(registry: &Registry) -> &'static str {
    let mut backends = registry.backends();
    backends.next().expect("a backend").name()
}

/// A checkpoint with its schemes.
pub(crate) struct Opened {
    pub registration: &'static Registration,
    pub checkpoint: Checkpoint,
    pub schemes: Schemes,
    pub options: BackendOptions,
}

/// A layer of a checkpoint that the backend under test claims.
pub(crate) struct Layer<'a> {
    pub opened: &'a Opened,
    pub path: &'a str,
}

impl<'a> Layer<'a> {
    /// Its tensors, for a model that expects this shape.
    pub fn source(&self, shape: Option<[usize; 2]>) -> LayerSource<'a> {
        LayerSource::new(&self.opened.checkpoint, self.path, shape)
    }

    /// The layer with its owner.
    ///
    /// # Panics
    /// If it has none.
    pub fn claimed(&self) -> ClaimedLayer<'a> {
        let claimed = self.opened.schemes.claim(self.source(None));
        claimed.unwrap_or_else(|| panic!("{self} is not claimed"))
    }

    /// Loads the layer.
    ///
    /// # Panics
    /// If that fails.
    pub fn load(&self, purpose: Purpose) -> LoadedLinear {
        let loaded = self.claimed().load(purpose);
        loaded.unwrap_or_else(|e| panic!("{self}: {e}"))
    }
}

impl std::fmt::Display for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder = self.opened.checkpoint.dir().display();
        write!(f, "{folder}: {}", self.path)
    }
}

impl Opened {
    /// Opens a checkpoint with one backend.
    ///
    /// # Panics
    /// If that fails.
    pub fn new(
        registration: &'static Registration,
        options: &BackendOptions,
        folder: &Path,
    ) -> Self {
        let failed = |e| panic!("{}: {e}", folder.display());
        let checkpoint = Checkpoint::open(folder).unwrap_or_else(failed);
        let schemes = alone(registration).open(&checkpoint, options);
        Self {
            registration,
            checkpoint,
            schemes: schemes.unwrap_or_else(|e| panic!("{}: {e}", folder.display())),
            options: options.clone(),
        }
    }

    /// A layer of it.
    pub fn layer<'a>(&'a self, path: &'a str) -> Layer<'a> {
        Layer { opened: self, path }
    }

    /// The backend alone.
    pub fn registry(&self) -> Registry {
        alone(self.registration)
    }

    /// What is claimed in a checkpoint are the layers that have an expected weight, no others.
    pub fn check_claims(&self, expected: &[&str]) {
        for path in self.checkpoint.modules() {
            let layer = LayerSource::new(&self.checkpoint, path, None);
            assert!(
                expected.contains(&path) || self.schemes.claim(layer).is_none(),
                "{}: {path} is claimed, but has no weight in expected.safetensors",
                self.checkpoint.dir().display()
            );
        }
    }
}
