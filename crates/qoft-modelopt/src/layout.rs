//! The library's tensors ↔ our packed form.
//!
//! | tensor | NVFP4 | MXFP4 | FP8 | MXFP8 |
//! |---|---|---|---|---|
//! | `weight` | U8 `[out, in / 2]` | U8 `[out, in / 2]` | F8_E4M3 `[out, in]` | F8_E4M3 `[out, in]` |
//! | `weight_scale` | F8_E4M3 `[out, in / 16]` | U8 `[out, in / 32]` | F32: one, `[out]`, or `[out / 128, 1, in / 128, 1]` | U8 `[out, in / 32]` |
//! | `weight_scale_2` | F32, one | | | |
//!
//! `W = number · (weight_scale · weight_scale_2)` in f32; bytes of U8 are exponents. `input_scale` is for
//! inputs, which stay as they are here.

use qoft_scheme::kernels::{
    CodeMap, Codes, FP4, FloatFormat, Floats, Fp8Format, GroupedWeight, Groups, Scales,
    powers_of_two,
};
use qoft_scheme::{Dtype, Keys, LayerSource, Result, TensorView};

use crate::config::{self, NVFP4_GROUP};

/// Name of the codes.
pub const WEIGHT: &str = "weight";
/// Name of the scales.
pub const SCALES: &str = "weight_scale";
/// Name of the scale of the scales.
pub const TENSOR_SCALE: &str = "weight_scale_2";
/// Input features that share a power of two.
const MX_GROUP: usize = 32;
/// Rows and columns of FP8's blocks.
const BLOCK: usize = 128;
/// Tensors of layers that compute more than a product with the weight.
const MORE: [&str; 3] = ["pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"];

/// What codes and scales stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Format {
    /// E2M1, scales in E4M3 that have a scale themselves.
    Nvfp4(f32),
    /// E2M1 with powers of two.
    Mxfp4,
    /// E4M3 with floats.
    Fp8,
    /// E4M3 with powers of two.
    Mxfp8,
}

impl Format {
    /// Whether codes have four bits.
    pub fn is_fp4(self) -> bool {
        matches!(self, Self::Nvfp4(_) | Self::Mxfp4)
    }

    /// The name that `qoft inspect` prints.
    fn name(self) -> &'static str {
        match self {
            Self::Nvfp4(_) => "nvfp4",
            Self::Mxfp4 => "mxfp4",
            Self::Fp8 => Fp8Format::E4m3.name(),
            Self::Mxfp8 => "mxfp8",
        }
    }
}

/// A layer's tensors and what they are, checked against each other.
pub struct ModeloptLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// What codes and scales stand for.
    pub format: Format,
    /// Rows and columns that share a scale; [`usize::MAX`] stands for all of them.
    pub blocks: [usize; 2],
    /// The scales.
    pub scales: TensorView,
    codes: TensorView,
}

impl ModeloptLayer {
    /// Whether the tensors are such a layer's, perhaps damaged.
    pub fn claims(layer: &LayerSource) -> bool {
        let is_dense = |weight: TensorView| weight.float_format().is_ok();
        let scaled = [SCALES, TENSOR_SCALE].iter().any(|name| layer.has(name));
        let codes = |weight: &TensorView| [Dtype::U8, Dtype::F8_E4M3].contains(&weight.dtype());
        match layer.get(WEIGHT) {
            Some(weight) => !is_dense(weight.clone()) && (scaled || codes(&weight)),
            None => scaled,
        }
    }

    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing, does not fit the others or the configuration, or the layer computes more than
    /// we do.
    pub fn parse(layer: &LayerSource, keys: &Keys) -> Result<Self> {
        if let Some(name) = MORE.iter().find(|name| layer.has(name)) {
            let reason = format!(
                "`{name}`: layers whose inputs are scaled, or that have a part of low rank, are not \
                 supported; export the model with another quant_algo (NVFP4, FP8)"
            );
            return Err(layer.error(reason));
        }
        let codes = layer.tensor(WEIGHT)?;
        let scales = layer.tensor(SCALES)?;
        let [n, bytes] = codes.expect_dtype(&[Dtype::U8, Dtype::F8_E4M3])?.matrix()?;
        let (format, k) = match codes.dtype() {
            Dtype::U8 => {
                scales.expect_dtype(&[Dtype::F8_E4M3, Dtype::U8])?;
                let k = bytes.checked_mul(2);
                let k = k.ok_or_else(|| codes.error("a matrix", codes.shown_shape()))?;
                match scales.dtype() {
                    Dtype::U8 => (Format::Mxfp4, k),
                    _ => (
                        Format::Nvfp4(layer.tensor(TENSOR_SCALE)?.one_positive("scale")?),
                        k,
                    ),
                }
            }
            _ => {
                scales.expect_dtype(&[Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::U8])?;
                match scales.dtype() {
                    Dtype::U8 => (Format::Mxfp8, bytes),
                    _ => (Format::Fp8, bytes),
                }
            }
        };
        let blocks = match format {
            Format::Fp8 => blocks(&scales, [n, k])?,
            Format::Nvfp4(_) => [1, group_size(&scales, k, keys, layer.path())?],
            Format::Mxfp4 | Format::Mxfp8 => [1, MX_GROUP],
        };
        if format != Format::Fp8 {
            scales.expect_shape(&[n, k.div_ceil(blocks[1])])?;
        }
        Ok(Self {
            shape: [n, k],
            format,
            blocks,
            scales,
            codes,
        })
    }

    /// Codes and scales stay on the memory map.
    ///
    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let bits = if self.format.is_fp4() { 4 } else { 8 };
        let codes = Codes::new(self.codes.bytes().clone(), bits);
        let map = match self.format.is_fp4() {
            true => CodeMap::Table16(Box::new(FP4)),
            false => CodeMap::Table256(Fp8Format::E4m3.table()),
        };
        let scales = match self.format {
            Format::Fp8 => Scales::Plain(self.scales.floats()?),
            Format::Mxfp4 | Format::Mxfp8 => self.coded(powers_of_two(), 1.0)?,
            Format::Nvfp4(scale) => self.coded(Fp8Format::E4m3.table(), scale)?,
        };
        let groups = Groups::Blocks(self.blocks);
        let parts = GroupedWeight::builder(self.shape, codes, map, groups, scales);
        Ok(parts.build(self.format.name())?)
    }

    /// Scales of one byte each, times one for all.
    fn coded(&self, table: Box<[f32; 256]>, scale: f32) -> Result<Scales> {
        let codes = self.scales.bytes().clone();
        Ok(Scales::Nested {
            block: codes.len(),
            codes,
            table,
            absmax: Floats::from_f32(&[scale], FloatFormat::F32)?,
            offset: 0.0,
        })
    }
}

/// Input features of `k` that share a scale of NVFP4. The configuration of some algorithms (W4A8_NVFP4_FP8) does
/// not say it in `config.json`; then as many as the scales are for.
fn group_size(scales: &TensorView, k: usize, keys: &Keys, path: &str) -> Result<usize> {
    if let Some(told) = config::group_size(keys, path)? {
        return Ok(told);
    }
    Ok(match *scales.shape() {
        [_, columns]
            if columns != k.div_ceil(NVFP4_GROUP) && columns > 0 && k.is_multiple_of(columns) =>
        {
            k / columns
        }
        _ => NVFP4_GROUP,
    })
}

/// Rows and columns that share a scale of an FP8 weight.
fn blocks(scales: &TensorView, [n, k]: [usize; 2]) -> Result<[usize; 2]> {
    let high = n.div_ceil(BLOCK);
    let wide = k.div_ceil(BLOCK);
    match *scales.shape() {
        [rows, 1, cols, 1] if (rows, cols) == (high, wide) => Ok([BLOCK, BLOCK]),
        [rows] | [rows, 1] if rows == n && n > 1 => Ok([1, usize::MAX]),
        _ if scales.elements() == 1 && scales.shape().len() < 4 => Ok([usize::MAX; 2]),
        _ => {
            let expected = format!("one scale, [{n}] or [{high}, 1, {wide}, 1]");
            Err(scales.error(expected, scales.shown_shape()))
        }
    }
}
