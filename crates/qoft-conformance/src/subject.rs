//! The backend under test and its checkpoints.

use std::path::{Path, PathBuf};

use qoft_core::{Checkpoint, LayerSource, LoadOptions, LoadedLinear, Purpose, Registration};

use crate::reference::{decode, expected_weights};

/// A backend with folders of checkpoints in its format.
pub struct Subject {
    registration: &'static Registration,
    folders: Vec<PathBuf>,
}

impl Subject {
    /// A backend without checkpoints yet.
    pub fn new(registration: &'static Registration) -> Self {
        Self {
            registration,
            folders: Vec::new(),
        }
    }

    /// Adds checkpoints: folders with `config.json` and safetensors, and with the dense weights
    /// in `expected.safetensors`, see [`expected_weights`].
    #[must_use]
    pub fn folders<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.folders.extend(folders.into_iter().map(Into::into));
        self
    }

    /// Runs all checks.
    ///
    /// # Panics
    /// If the backend fails one.
    pub fn check(&self) {
        assert!(!self.folders.is_empty(), "no checkpoints to check");
        for folder in &self.folders {
            self.check_values(folder);
        }
    }

    /// Loads a layer and panics if that fails.
    fn load(&self, checkpoint: &Checkpoint, path: &str, purpose: Purpose) -> LoadedLinear {
        let options = LoadOptions {
            purpose,
            ..LoadOptions::default()
        };
        self.registration
            .backend
            .load(&LayerSource::new(checkpoint, path), &options)
            .unwrap_or_else(|e| panic!("{}: {e}", checkpoint.dir().display()))
    }

    /// Every layer dequantizes bit for bit.
    fn check_values(&self, folder: &Path) {
        let checkpoint = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}"));
        for (path, expected) in expected_weights(folder) {
            let loaded = self.load(&checkpoint, &path, Purpose::Dequantize);
            let found = decode(&*loaded.weight);
            assert_eq!(found.shape, expected.shape, "{}: {path}", folder.display());
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0);
            let wrong = found
                .values
                .iter()
                .zip(&expected.values)
                .position(|p| !same(p));
            if let Some(at) = wrong {
                let (n, k) = (at / found.shape[1], at % found.shape[1]);
                panic!(
                    "{}: {path}: weight [{n}, {k}] is {:e}, expected {:e}",
                    folder.display(),
                    found.values[at],
                    expected.values[at]
                );
            }
        }
    }
}
