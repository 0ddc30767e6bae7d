//! Writing models in a container's format.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use qoft_kernels::FloatFormat;
use safetensors::Dtype;
use serde_json::Value;

use crate::error::{Error, Result};

/// Writes models in the format of a [`Container`](crate::Container).
pub trait ContainerWriter: Send + Sync {
    /// Names of the number types in which dense models are written.
    fn number_types(&self) -> Vec<&'static str>;

    /// Writes a dense model. `numbers` is one of [`Self::number_types`]; without it the type follows
    /// from the model's dtype. `wrote` is called after each tensor.
    ///
    /// # Errors
    /// If the format has no name for the model or for something in it, there is no such type, or the
    /// file system refuses.
    fn write(
        &self,
        model: &NewModel,
        numbers: Option<&str>,
        to: WriteTo,
        wrote: &mut dyn FnMut(),
    ) -> Result<()>;

    /// Writes the model at `source`, which [`Container::open`](crate::Container::open) has shown,
    /// with these tensors under the names that they were shown with; all else as it is. Tensors that
    /// the model did not have come to the others. Returns the number of files.
    ///
    /// # Errors
    /// If a tensor is missing or of another kind than before, one cannot be named, or the file system
    /// refuses.
    fn rewrite(
        &self,
        source: &Path,
        tensors: &[ModelTensor],
        to: WriteTo,
        wrote: &mut dyn FnMut(),
    ) -> Result<usize>;
}

/// Where files are written.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WriteTo<'a> {
    /// A folder that exists.
    pub folder: &'a Path,
    /// The name of the only file, if somebody chose one.
    pub file: Option<&'a str>,
}

impl<'a> WriteTo<'a> {
    /// Files of this folder, with a name for the only one or without.
    pub fn new(folder: &'a Path, file: Option<&'a str>) -> Self {
        Self { folder, file }
    }
}

/// A dense model that is written.
#[non_exhaustive]
pub struct NewModel<'a> {
    /// What it is called.
    pub name: &'a str,
    /// As `config.json` has it.
    pub config: &'a Value,
    /// A folder with the small files beside it: tokenizer, chat template and the like.
    pub folder: &'a Path,
    /// The dtype that its weights had, of which its tensors may be a finer one.
    pub format: FloatFormat,
    /// Tensors of plain floats.
    pub tensors: Vec<ModelTensor<'a>>,
}

impl<'a> NewModel<'a> {
    /// A model of these parts, with weights of `f32`.
    pub fn new(name: &'a str, config: &'a Value, folder: &'a Path) -> Self {
        Self {
            name,
            config,
            folder,
            format: FloatFormat::F32,
            tensors: Vec::new(),
        }
    }

    /// The same with tensors of the model, whose weights were of the dtype `format`.
    #[must_use]
    pub fn with_tensors(self, tensors: Vec<ModelTensor<'a>>, format: FloatFormat) -> Self {
        Self {
            tensors,
            format,
            ..self
        }
    }
}

type Make<'a> = dyn Fn() -> Result<Cow<'a, [u8]>> + Send + Sync + 'a;

/// A tensor whose bytes are there, or are made when it is written.
#[non_exhaustive]
pub struct ModelTensor<'a> {
    /// Full name.
    pub name: String,
    /// Dtype of its values.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    make: Box<Make<'a>>,
}

impl<'a> ModelTensor<'a> {
    /// A tensor whose bytes `make` makes.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        make: impl Fn() -> Result<Cow<'a, [u8]>> + Send + Sync + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            make: Box::new(make),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// If they cannot be made, or are not as many as dtype and shape say.
    pub fn content(&self) -> Result<Cow<'a, [u8]>> {
        let bytes = (self.make)()?;
        let expected = self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8;
        if bytes.len() != expected {
            let found = bytes.len();
            let reason = format!("has {found} bytes, expected {expected}");
            return Err(Error::file(&self.name, reason));
        }
        Ok(bytes)
    }
}

impl fmt::Debug for ModelTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.name, self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_the_bytes_of_its_shape() {
        let tensor = |bytes: usize| {
            let make = move || Ok(vec![0; bytes].into());
            ModelTensor::new("a", Dtype::F16, &[2, 3], make).content()
        };
        assert_eq!(tensor(12).unwrap().len(), 12);
        let error = tensor(11).unwrap_err().to_string();
        assert!(error.contains("11 bytes, expected 12"), "{error}");
    }
}
