//! The `quant_state` of a 4-bit layer: JSON text, stored as a tensor of bytes.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Dtype, LayerSource, QuantBackend, Result};
use serde::Deserialize;

/// Start of the name of the tensor that holds the state; `nf4` or `fp4` follows.
pub const QUANT_STATE: &str = "weight.quant_state.bitsandbytes__";

/// What bitsandbytes records of a quantized weight.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct QuantState {
    /// `nf4` or `fp4`.
    pub quant_type: String,
    /// Consecutive weights that share an absmax.
    pub blocksize: usize,
    /// Dtype of the weight that was quantized; dequantization rounds to it.
    pub dtype: BlobDtype,
    /// `[out_features, in_features]`; absent in odd files.
    pub shape: Option<Vec<usize>>,
    /// Groups that share a nested absmax; present with double quantization.
    pub nested_blocksize: Option<usize>,
    /// Added to nested absmax values.
    pub nested_offset: Option<f64>,
}

/// Dtype of the weight that was quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobDtype {
    /// `float32`.
    Float32,
    /// `float16`.
    Float16,
    /// `bfloat16`.
    Bfloat16,
}

impl BlobDtype {
    /// The format that dequantization rounds to.
    pub fn format(self) -> FloatFormat {
        match self {
            Self::Float32 => FloatFormat::F32,
            Self::Float16 => FloatFormat::F16,
            Self::Bfloat16 => FloatFormat::Bf16,
        }
    }
}

impl QuantState {
    /// Reads the state of a layer.
    ///
    /// # Errors
    /// If it is missing, no JSON, or contradicts the name of its tensor.
    pub fn read(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<Self> {
        let suffix = layer
            .suffixes()
            .find(|s| s.starts_with(QUANT_STATE))
            .ok_or_else(|| layer.error(backend, format!("tensor `{QUANT_STATE}…` is missing")))?;
        let tensor = layer.tensor(suffix)?;
        tensor.expect_dtype(&[Dtype::U8])?;
        let state: Self = serde_json::from_slice(tensor.bytes())
            .map_err(|e| tensor.error("a quantization state in JSON", e))?;
        let kind = &suffix[QUANT_STATE.len()..];
        if !matches!(kind, "nf4" | "fp4") || state.quant_type != kind {
            let found = format!("`{kind}` in the name, `{}` inside", state.quant_type);
            return Err(tensor.error("nf4 or fp4", found));
        }
        Ok(state)
    }

    /// Name of the number format.
    pub fn format(&self) -> &'static str {
        if self.quant_type == "nf4" {
            "nf4"
        } else {
            "fp4"
        }
    }
}
