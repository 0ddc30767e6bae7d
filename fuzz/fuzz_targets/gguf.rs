//! A model in one GGUF file: configuration, tokenizer and tensors are read, every layer is decoded and
//! written, and the file is written again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft_fuzz::{folder, layers, write};
use qoft_gguf as _;
use qoft_kernels::FloatFormat;
use qoft_scheme::{Checkpoint, Containers, ModelTensor, NewModel, Result, WriteTo};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
static OUTPUT: LazyLock<TempDir> = LazyLock::new(folder);

/// Bytes of all tensors that are worth the time to write them.
const WRITTEN: usize = 1 << 16;

fuzz_target!(|input: &[u8]| {
    write(FOLDER.path(), "model.gguf", input);
    let path = FOLDER.path().join("model.gguf");
    let opened = Containers::linked().and_then(|containers| containers.open(path));
    if let Ok(checkpoint) = opened {
        let _ = layers::read_all(&checkpoint);
        let _ = written(&checkpoint);
    }
});

/// Writes the model as it is, and as a new one.
fn written(checkpoint: &Checkpoint) -> Result<()> {
    let mut bytes = 0usize;
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name)?;
        bytes = bytes.saturating_add(tensor.bytes().len());
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let content = tensor.bytes().clone();
        let make = move || Ok(content.to_vec().into());
        tensors.push(ModelTensor::new(name, dtype, &shape, make));
    }
    let Some(writer) = checkpoint.container().and_then(|container| container.writer()) else {
        return Ok(());
    };
    if bytes > WRITTEN {
        return Ok(());
    }
    let to = WriteTo::new(OUTPUT.path(), Some("model.gguf"));
    writer.rewrite(checkpoint.path(), &tensors, to, &mut || ())?;
    let again = Containers::linked()?.open(OUTPUT.path().join("model.gguf"));
    again.expect("a file that was written is read");
    let model = NewModel::new("model", checkpoint.config(), checkpoint.dir());
    let model = model.with_tensors(tensors, FloatFormat::F32);
    writer.write(&model, Some("q8_0"), to, &mut || ())
}
