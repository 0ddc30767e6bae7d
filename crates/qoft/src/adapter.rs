//! An adapter with its strength.

use qoft_peft::AdapterFolder;

/// An adapter with its strength.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScaledAdapter {
    /// The adapter.
    pub folder: AdapterFolder,
    /// 1 for all of it; the rotation is that of so many times the parameters.
    pub strength: f64,
}

impl ScaledAdapter {
    /// So many times the parameters of an adapter.
    pub fn new(folder: AdapterFolder, strength: f64) -> Self {
        Self { folder, strength }
    }

    /// Whether it has a rotation for the layer.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.folder.paths().any(|adapted| adapted == path)
    }

    /// Whether it changes the layer.
    pub fn changes(&self, path: &str) -> bool {
        self.strength != 0.0 && self.has(path)
    }
}
