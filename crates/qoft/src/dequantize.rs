//! Writing a quantized checkpoint as a dense one.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{Purpose, Result, Schemes};
use qoft_models::ModelFolder;

use crate::merge::{MergeOptions, MergeTarget, merge};
use crate::write::MaxShardSize;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DequantizeReport {
    /// Layers that were quantized.
    pub layers: usize,
    /// Those of them whose weights the library of their scheme rounds to a dtype of its own, so that
    /// they are not the values that the model computes with here.
    pub rounded: usize,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// What a dense checkpoint is like. A [`FloatFormat`] alone is one with the defaults.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DequantizeOptions {
    /// The format of its weights.
    pub format: FloatFormat,
    /// The values before they are rounded to the format: those that the scheme's own library writes,
    /// or, with [`Purpose::Forward`], those that the model computes with. Of most schemes they are the
    /// same; some libraries round to the dtype that weights had before they were quantized.
    pub values: Purpose,
    /// How large its files become.
    pub max_shard_size: MaxShardSize,
}

impl DequantizeOptions {
    /// The same with these values.
    #[must_use]
    pub fn values(self, values: Purpose) -> Self {
        Self { values, ..self }
    }

    /// The same with another size of files.
    #[must_use]
    pub fn max_shard_size(self, max_shard_size: MaxShardSize) -> Self {
        Self {
            max_shard_size,
            ..self
        }
    }
}

impl From<FloatFormat> for DequantizeOptions {
    fn from(format: FloatFormat) -> Self {
        Self {
            format,
            values: Purpose::Dequantize,
            max_shard_size: MaxShardSize::default(),
        }
    }
}

/// Writes a dense checkpoint to the new folder `output`, layer by layer: a merge of
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
    options: impl Into<DequantizeOptions>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<DequantizeReport> {
    let options = options.into();
    let merging = MergeOptions::new(MergeTarget::Dense(options.format));
    let merging = merging
        .dense_values(options.values)
        .max_shard_size(options.max_shard_size);
    let report = merge(folder, schemes, &[], merging, output, progress)?;
    Ok(DequantizeReport {
        layers: report.dequantized,
        rounded: report.rounded,
        tensors: report.tensors,
        shards: report.shards,
        bytes: report.bytes,
    })
}
