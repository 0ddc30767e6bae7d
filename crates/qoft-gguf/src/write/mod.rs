//! Writing models: those that were read, with some tensors changed, and those of Hugging Face.

mod again;
mod layout;

use std::path::Path;

use qoft_scheme::{ContainerWriter, ModelTensor, NewModel, Result, WriteTo};

use crate::container::GgufContainer;

impl ContainerWriter for GgufContainer {
    fn number_types(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn write(
        &self,
        _model: &NewModel,
        _numbers: Option<&str>,
        _to: WriteTo,
        _wrote: &mut dyn FnMut(),
    ) -> Result<()> {
        Ok(())
    }

    fn rewrite(
        &self,
        source: &Path,
        tensors: &[ModelTensor],
        to: WriteTo,
        wrote: &mut dyn FnMut(),
    ) -> Result<usize> {
        again::rewrite(source, tensors, to, wrote)
    }
}
