//! Writing models in other file formats than folders of safetensors.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Container, ContainerWriter, Error, ModelTensor, NewModel, Result, StagedDir,
    WriteTo,
};
use qoft_models::ModelFolder;
use serde_json::Value;
use tracing::warn;

use super::{Output, Written};
use crate::layers::is_foreign;
use crate::model_dtype::stated;

/// A file format that a dense model is written in.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct NewContainer<'a> {
    /// The format.
    pub container: &'a dyn Container,
    /// One of its [number types](ContainerWriter::number_types); without it the one that the format
    /// has for the model's dtype.
    pub numbers: Option<&'a str>,
}

impl<'a> NewContainer<'a> {
    /// This format, with numbers as they are in the model.
    pub fn new(container: &'a dyn Container) -> Self {
        Self {
            container,
            numbers: None,
        }
    }

    /// The same with numbers of this type.
    #[must_use]
    pub fn numbers(self, numbers: Option<&'a str>) -> Self {
        Self { numbers, ..self }
    }

    /// What writes the format.
    ///
    /// # Errors
    /// If nothing does, or it does not have the type of numbers.
    pub(crate) fn writer(&self) -> Result<&'a dyn ContainerWriter> {
        let name = self.container.name();
        let writer = self.container.writer();
        let writer = writer.ok_or_else(|| {
            let reason = format!("files of the format {name} are only read, not written");
            Error::file(name, reason)
        })?;
        match self.numbers {
            Some(numbers) if !writer.number_types().contains(&numbers) => {
                let known = writer.number_types().join(", ");
                let reason = format!("there is no type of numbers `{numbers}`, only {known}");
                Err(Error::file(name, reason))
            }
            _ => Ok(writer),
        }
    }
}

/// The format that a checkpoint is read from, if it is no folder and can be written again.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn writer_of(checkpoint: &Checkpoint) -> Result<Option<&'static dyn ContainerWriter>> {
    let Some(container) = checkpoint.container() else {
        return Ok(None);
    };
    let name = container.name();
    let writer = container.writer().map(Some);
    writer.ok_or_else(|| {
        let reason = format!(
            "files of the format {name} are not written: a merge of them is dense or in another \
             scheme"
        );
        Error::file(checkpoint.path(), reason)
    })
}

/// Writes a checkpoint with these tensors in the format that it was read from.
pub(crate) fn rewrite(
    checkpoint: &Checkpoint,
    writer: &dyn ContainerWriter,
    staged: &StagedDir,
    outputs: Vec<Output>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Written> {
    let (tensors, to) = (tensors(&outputs), to(staged));
    let mut counted = counted(outputs.len(), progress);
    let shards = writer.rewrite(checkpoint.path(), &tensors, to, &mut counted)?;
    Ok(written(&outputs, shards))
}

/// Writes a dense model with the configuration `config` and these tensors in another format.
pub(crate) fn write_model(
    folder: &ModelFolder,
    form: NewContainer,
    config: &Value,
    staged: &StagedDir,
    mut outputs: Vec<Output>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Written> {
    let checkpoint = folder.checkpoint();
    leave_out_unread(&mut outputs, folder);
    let name = model_name(checkpoint.path());
    let model = NewModel::new(&name, config, checkpoint.dir());
    let format = stated(checkpoint.config()).unwrap_or(FloatFormat::F16);
    let model = model.with_tensors(tensors(&outputs), format);
    let mut counted = counted(outputs.len(), progress);
    let writer = form.writer()?;
    writer.write(&model, form.numbers, to(staged), &mut counted)?;
    Ok(written(&outputs, 1))
}

/// Other formats have names for what is a model's only, and what a model does not read could be read
/// there.
fn leave_out_unread(outputs: &mut Vec<Output>, folder: &ModelFolder) {
    let (unread, read): (Vec<Output>, Vec<Output>) = std::mem::take(outputs)
        .into_iter()
        .partition(|output| is_foreign(folder, &output.name));
    if let Some(first) = unread.first() {
        warn!(
            "{}: {} tensors that are none of the model's are left out of the file, the first is `{}`",
            folder.checkpoint().path().display(),
            unread.len(),
            first.name
        );
    }
    *outputs = read;
}

/// What a model is called: its folder or file, without the ending.
fn model_name(path: &Path) -> String {
    let full = path.canonicalize();
    let full = full.as_deref().unwrap_or(path);
    let name = match full.is_dir() {
        true => full.file_name(),
        false => full.file_stem(),
    };
    let name = name.and_then(|name| name.to_str());
    name.unwrap_or("model").to_owned()
}

fn tensors<'a>(outputs: &'a [Output]) -> Vec<ModelTensor<'a>> {
    let tensors = outputs.iter().map(|output| {
        let content = move || output.content();
        ModelTensor::new(output.name.clone(), output.dtype, &output.shape, content)
    });
    tensors.collect()
}

fn to(staged: &StagedDir) -> WriteTo<'_> {
    WriteTo::new(staged.path(), staged.file_name())
}

/// Tells of one tensor more with each call.
fn counted<'a>(total: usize, progress: &'a (dyn Fn(usize, usize) + Sync)) -> impl FnMut() + 'a {
    let mut done = 0;
    move || {
        done += 1;
        progress(done, total);
    }
}

fn written(outputs: &[Output], shards: usize) -> Written {
    Written {
        tensors: outputs.len(),
        shards,
        bytes: outputs.iter().map(Output::bytes).sum(),
    }
}
