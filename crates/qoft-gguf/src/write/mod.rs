//! Writing models: those that were read, with some tensors changed, and those of Hugging Face.

mod again;
mod config;
mod keys;
mod layout;
mod new;
mod numbers;
mod rope;
mod tokenizer;

use std::path::Path;

use qoft_scheme::{ContainerWriter, ModelTensor, NewModel, Result, WriteTo};

use crate::container::GgufContainer;
use numbers::Numbers;

impl ContainerWriter for GgufContainer {
    fn number_types(&self) -> Vec<&'static str> {
        Numbers::names()
    }

    fn write(
        &self,
        model: &NewModel,
        numbers: Option<&str>,
        to: WriteTo,
        wrote: &mut dyn FnMut(),
    ) -> Result<()> {
        new::write(model, numbers, to, wrote)
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
