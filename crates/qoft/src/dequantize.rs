//! Writing a quantized checkpoint as a dense one.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{Result, Schemes};
use qoft_models::ModelFolder;

use crate::merge::{MergeTarget, merge};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DequantizeReport {
    /// Layers that were quantized.
    pub layers: usize,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// Writes a dense checkpoint in `format` to the new folder `output`, layer by layer: a merge of
/// no adapters.
///
/// The configuration loses its `quantization_config`; tokenizer files are copied.
/// `progress` is told how many of how many pieces are done.
///
/// # Errors
/// If a layer is damaged or of no known scheme, or the output cannot be written; then there is
/// no output folder.
pub fn dequantize(
    folder: &ModelFolder,
    schemes: &Schemes,
    output: &Path,
    format: FloatFormat,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<DequantizeReport> {
    let target = MergeTarget::Dense(format);
    let report = merge(folder, schemes, &[], target, output, progress)?;
    Ok(DequantizeReport {
        layers: report.dequantized,
        tensors: report.tensors,
        shards: report.shards,
        bytes: report.bytes,
    })
}
