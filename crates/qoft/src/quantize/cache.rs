//! Packed weights that are kept for the next time.

use std::path::{Path, PathBuf};

use qoft_core::kernels::FloatFormat;
use qoft_core::{Checkpoint, Error, Quantization, Result};
use qoft_train::train::Digest;

use super::plan::Plan;
use crate::write::{Output, write_tensors};

/// The file in the folder `dir` for the packed weights of a checkpoint, whose configuration says how
/// it is to be quantized.
pub fn file(
    dir: &Path,
    checkpoint: &Checkpoint,
    quantization: &Quantization,
    format: FloatFormat,
) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let digest = Digest::of_checkpoint(checkpoint)?;
    let (backend, format) = (quantization.backend(), format.name());
    let version = env!("CARGO_PKG_VERSION");
    Ok(dir.join(format!("{digest}-{backend}-{format}-{version}.safetensors")))
}

/// Lets the checkpoint have the tensors of the file; `false` if there is none that is whole.
pub fn read(file: &Path, checkpoint: &mut Checkpoint, plan: &Plan) -> bool {
    if !file.is_file() {
        return false;
    }
    match checkpoint.overlay(file, plan.paths()) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{error}; the model is quantized anew");
            false
        }
    }
}

/// Writes the tensors in which `quantized` differs from `dense`. A cache that cannot be written is
/// no error: the model is there.
pub fn write(file: &Path, dense: &Checkpoint, quantized: &Checkpoint) {
    let written = || {
        let mut outputs = Vec::new();
        for name in quantized.names() {
            let tensor = quantized.tensor(name)?;
            let before = dense.get(name);
            if before.is_none_or(|before| before.file() != tensor.file()) {
                outputs.push(Output::copy(tensor));
            }
        }
        write_tensors(file, &outputs)
    };
    if let Err(error) = written() {
        tracing::warn!("the packed weights are not kept: {error}");
    }
}
