//! The scheme's tensors as our packed form.

use std::sync::Arc;

use qoft_core::kernels::{
    CodeMap, Codes, FloatFormat, Floats, Fp8Format, GroupedWeight, Groups, Scales, check_finite,
};
use qoft_core::{Dtype, LayerSource, LoadedLinear, QuantBackend, Result, TensorView};

use crate::config;

/// Name of the codes: one byte a weight, `[out_features, in_features]`.
pub const WEIGHT: &str = "weight";
/// Name of the scales. In spite of it, weights are codes times scales.
pub const SCALES: &str = "weight_scale_inv";

/// Loads a layer. The codes stay on the memory map.
pub fn load(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<LoadedLinear> {
    let codes = layer.tensor(WEIGHT)?;
    let &[n, k] = codes.expect_dtype(&[Dtype::F8_E4M3])?.shape() else {
        return Err(codes.error("a matrix", format!("shape {:?}", codes.shape())));
    };
    layer.check_shape(backend, [n, k])?;

    let format = Fp8Format::E4m3;
    let stored = layer.tensor(SCALES)?;
    let scales = scales(&stored)?;
    let largest = (0..scales.len()).map(|group| scales.get(group).abs());
    let overflows = largest.fold(0.0, f32::max) * format.max() == f32::INFINITY;
    let weight = GroupedWeight::new(
        [n, k],
        Codes {
            bytes: codes.bytes().clone(),
            bits: 8,
        },
        CodeMap::Table256(format.table()),
        groups(layer, &stored, [n, k])?,
        Scales::Plain(scales),
        format.name(),
    )
    .map_err(layer.weight_error(backend))?;
    if overflows {
        check_finite(&weight).map_err(layer.weight_error(backend))?;
    }
    Ok(LoadedLinear {
        weight: Arc::new(weight),
        bias: layer.bias(n)?,
        input_quantizer: None,
    })
}

/// Blocks, short ones at the edges, or the whole matrix. There has to be one scale for each.
fn groups(layer: &LayerSource, scales: &TensorView, [n, k]: [usize; 2]) -> Result<Groups> {
    match config::block_size(layer)? {
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
