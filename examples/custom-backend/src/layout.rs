//! The scheme's tensors as our packed form.

use qoft_core::kernels::{
    CodeMap, Codes, FloatFormat, Floats, Fp8Format, GroupedWeight, Groups, Scales,
};
use qoft_core::{Dtype, LayerSource, LoadedLinear, ParsedLayer, Purpose, Result, TensorView};

/// Name of the codes: one byte a weight, `[out_features, in_features]`.
pub const WEIGHT: &str = "weight";
/// Name of the scales. In spite of it, weights are codes times scales.
pub const SCALES: &str = "weight_scale_inv";

/// The tensors of a layer, checked.
pub struct Fp8Layer {
    shape: [usize; 2],
    codes: TensorView,
    groups: Groups,
    scales: TensorView,
}

impl Fp8Layer {
    /// Finds the tensors; `blocks` are the rows and columns that share a scale, see
    /// [`block_size`](crate::config::block_size).
    ///
    /// # Errors
    /// If a tensor is missing, or of another dtype or shape.
    pub fn parse(layer: &LayerSource, blocks: Option<[usize; 2]>) -> Result<Self> {
        let codes = layer.tensor(WEIGHT)?;
        let shape = codes.expect_dtype(&[Dtype::F8_E4M3])?.matrix()?;
        let scales = layer.tensor(SCALES)?;
        Ok(Self {
            shape,
            codes,
            groups: groups(&scales, shape, blocks)?,
            scales,
        })
    }
}

impl ParsedLayer for Fp8Layer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The codes stay on the memory map. Inputs are not quantized, so that there is only one set of
    /// values for all purposes.
    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        let format = Fp8Format::E4m3;
        let codes = Codes::new(self.codes.bytes().clone(), 8);
        let map = CodeMap::Table256(format.table());
        let scales = Scales::Plain(scales(&self.scales)?);
        let weight = GroupedWeight::builder(self.shape, codes, map, self.groups.clone(), scales);
        Ok(LoadedLinear::new(weight.build(format.name())?))
    }
}

/// Blocks, short ones at the edges, or the whole matrix. There has to be one scale for each.
fn groups(scales: &TensorView, [n, k]: [usize; 2], blocks: Option<[usize; 2]>) -> Result<Groups> {
    match blocks {
        Some([rows, cols]) => {
            scales.expect_shape(&[n.div_ceil(rows), k.div_ceil(cols)])?;
            Ok(Groups::Blocks([rows, cols]))
        }
        None if scales.elements() == 1 => Ok(Groups::TENSOR),
        None => Err(scales.error("one scale", format!("shape {:?}", scales.shape()))),
    }
}

/// Floats as they are; powers of two (E8M0) as `f32`.
fn scales(stored: &TensorView) -> Result<Floats> {
    if stored.dtype() != Dtype::F8_E8M0 {
        return stored.floats();
    }
    let values: Vec<f32> = stored.bytes().iter().map(|&byte| power(byte)).collect();
    Floats::from_f32(&values, FloatFormat::F32).map_err(|_| stored.error("finite values", "NaN"))
}

/// `2^(byte − 127)`. The last byte is NaN in E8M0 and becomes an infinity, which is refused too.
fn power(byte: u8) -> f32 {
    // The byte is the exponent of an f32; only 2^-127 is too small for a normal number.
    f32::from_bits((u32::from(byte) << 23).max(1 << 22))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_powers_of_two() {
        for byte in 0..=254u8 {
            assert_eq!(f64::from(power(byte)), 2f64.powi(i32::from(byte) - 127));
        }
        assert!(!power(255).is_finite());
    }
}
