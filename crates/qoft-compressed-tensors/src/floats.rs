//! Floats of 8 or 4 bits.
//!
//! | format | tensor | dtype | shape |
//! |---|---|---|---|
//! | `float-quantized`, `naive-quantized` | `weight` | F8_E4M3 | `[out, in]` |
//! | | `weight_scale` | F32, F16 or BF16 | see [`Strategy::scale_shape`] |
//! | `mxfp8-quantized` | `weight` | F8_E4M3 | `[out, in]` |
//! | | `weight_scale` | U8 | `[out, in / 32]`: exponents |
//! | `mxfp4-pack-quantized` | `weight_packed` | U8 | `[out, in / 2]`, the first of two in the low bits |
//! | | `weight_scale` | U8 | `[out, in / 32]`: exponents |
//! | `nvfp4-pack-quantized` | `weight_packed` | U8 | as above |
//! | | `weight_scale` | F8_E4M3 | `[out, in / 16]` |
//! | | `weight_global_scale` | F32 | `[1]`: scales are divided by it |
//!
//! `W = number · scale`, rounded to the dtype of the scale, or to bf16 where scales are bytes.

use std::sync::Arc;

use qoft_scheme::kernels::{
    CodeMap, Codes, FP4, FloatFormat, Fp8Format, GroupedWeight, Groups, Scales, powers_of_two,
};
use qoft_scheme::{Dtype, LayerSource, PackedWeight, Result, TensorView};

use crate::scheme::{Numbers, Strategy, WeightScheme};
use crate::tensors::{GLOBAL, PACKED, SCALE, WEIGHT, scales};

/// The 8-bit numbers.
pub const FP8: Fp8Format = Fp8Format::E4m3;

/// A layer's tensors and what they are, checked against each other.
pub struct FloatLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Rows and columns that share a scale.
    pub blocks: [usize; 2],
    /// The scales.
    pub scales: TensorView,
    /// What scales are.
    pub kind: ScaleKind,
    /// Whether two codes share a byte.
    pub in_pairs: bool,
    codes: TensorView,
}

/// What scales are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScaleKind {
    /// Floats of a dtype, to which weights are rounded.
    Floats(FloatFormat),
    /// Exponents.
    Powers,
    /// 8-bit floats that are divided by a number.
    Fp8Over(f32),
}

impl FloatLayer {
    /// A layer of bytes.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn bytes(layer: &LayerSource, scheme: WeightScheme) -> Result<Self> {
        let codes = layer.tensor(WEIGHT)?;
        let shape = codes.expect_dtype(&[Dtype::F8_E4M3])?.matrix()?;
        expect(layer, scheme, Numbers::Fp8)?;
        let scales = scales(layer, scheme.strategy, shape)?;
        let kind = match scales.dtype() {
            Dtype::U8 => ScaleKind::Powers,
            _ => ScaleKind::Floats(scales.float_format()?),
        };
        Ok(Self {
            shape,
            blocks: scheme.strategy.blocks(),
            scales,
            kind,
            in_pairs: false,
            codes,
        })
    }

    /// A layer with two codes in a byte.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn pairs(layer: &LayerSource, scheme: WeightScheme) -> Result<Self> {
        let codes = layer.tensor(PACKED)?;
        let [n, half] = codes.expect_dtype(&[Dtype::U8])?.matrix()?;
        expect(layer, scheme, Numbers::Fp4)?;
        let Strategy::Group(_) = scheme.strategy else {
            return Err(layer.error("4-bit floats need groups"));
        };
        let shape = [n, half.saturating_mul(2)];
        let scales = scales(layer, scheme.strategy, shape)?;
        let kind = match scales.dtype() {
            Dtype::F8_E4M3 => ScaleKind::Fp8Over(global_scale(layer)?),
            Dtype::U8 => ScaleKind::Powers,
            _ => {
                let error = scales.expect_dtype(&[Dtype::F8_E4M3, Dtype::U8]);
                return Err(error.err().unwrap_or_else(|| layer.error(SCALE)));
            }
        };
        Ok(Self {
            shape,
            blocks: scheme.strategy.blocks(),
            scales,
            kind,
            in_pairs: true,
            codes,
        })
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<Arc<dyn PackedWeight>> {
        let bits = if self.in_pairs { 4 } else { 8 };
        let codes = Codes::new(self.codes.bytes().clone(), bits);
        let (map, name) = match (self.in_pairs, self.kind) {
            (false, ScaleKind::Floats(_)) => (CodeMap::Table256(FP8.table()), FP8.name()),
            (false, _) => (CodeMap::Table256(FP8.table()), "mxfp8"),
            (true, ScaleKind::Powers) => (CodeMap::Table16(Box::new(FP4)), "mxfp4"),
            (true, _) => (CodeMap::Table16(Box::new(FP4)), "nvfp4"),
        };
        let bytes = || self.scales.bytes().clone();
        let scales = match self.kind {
            ScaleKind::Floats(_) => Scales::Plain(self.scales.floats()?),
            ScaleKind::Powers => Scales::coded(bytes(), powers_of_two())?,
            ScaleKind::Fp8Over(global) => Scales::coded(bytes(), over(global))?,
        };
        let groups = Groups::Blocks(self.blocks);
        let weight = GroupedWeight::builder(self.shape, codes, map, groups, scales);
        let weight = weight.rounding(self.rounding()).build(name)?;
        Ok(Arc::new(weight))
    }

    /// What weights are rounded to.
    pub fn rounding(&self) -> FloatFormat {
        match self.kind {
            ScaleKind::Floats(format) => format,
            // The library decodes to bf16, whatever the model has.
            _ => FloatFormat::Bf16,
        }
    }
}

/// 8-bit floats, divided by a number.
pub fn over(global: f32) -> Box<[f32; 256]> {
    let mut table = FP8.table();
    table.iter_mut().for_each(|scale| *scale /= global);
    table
}

fn global_scale(layer: &LayerSource) -> Result<f32> {
    let tensor = layer.tensor(GLOBAL)?;
    tensor.expect_dtype(&[Dtype::F32])?;
    tensor.one_positive("number")
}

/// The configuration has to say the same as the tensors.
fn expect(layer: &LayerSource, scheme: WeightScheme, numbers: Numbers) -> Result<()> {
    match scheme.numbers == numbers {
        true => Ok(()),
        false => {
            let said = scheme.numbers;
            let reason = format!("{numbers:?} is stored, the configuration says {said:?}");
            Err(layer.error(reason))
        }
    }
}
