//! What a program can use: all registries together.

use qoft_core::{Containers, Registry, Result};
use qoft_models::Architectures;
use qoft_peft::Families;

/// The schemes, file formats, architectures and families of adapters that a program uses. One of its
/// own takes the place of a linked registry: `registries.schemes = registries.schemes.with(&entry)?`.
#[derive(Clone)]
#[non_exhaustive]
pub struct Registries {
    /// Quantization schemes.
    pub schemes: Registry,
    /// File formats of checkpoints, beside folders of Hugging Face.
    pub containers: Containers,
    /// Architectures of models.
    pub architectures: Architectures,
    /// Families of adapters.
    pub families: Families,
}

impl Registries {
    /// All that is linked into the program.
    ///
    /// # Errors
    /// If two entries have the same name, or it is unclear which comes first.
    pub fn linked() -> Result<Self> {
        Ok(Self {
            schemes: Registry::linked()?,
            containers: Containers::linked()?,
            architectures: Architectures::linked()?,
            families: Families::linked()?,
        })
    }
}
