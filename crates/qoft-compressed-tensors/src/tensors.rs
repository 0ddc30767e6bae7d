//! Names of a layer's tensors, and the scales that all formats have.

use qoft_scheme::{LayerSource, Result, TensorView};

use crate::scheme::Strategy;

/// The codes, one in a byte.
pub const WEIGHT: &str = "weight";
/// Codes in words, or two in a byte.
pub const PACKED: &str = "weight_packed";
/// The scales.
pub const SCALE: &str = "weight_scale";
/// The scale of all scales.
pub const GLOBAL: &str = "weight_global_scale";
/// The sizes of the weight.
pub const SHAPE: &str = "weight_shape";
/// The zero points.
pub const ZERO: &str = "weight_zero_point";
/// The group of each input feature.
pub const INDEX: &str = "weight_g_idx";

/// The scales, of which there has to be one for each block of the strategy.
///
/// # Errors
/// If they are missing or of another shape.
pub fn scales(layer: &LayerSource, strategy: Strategy, shape: [usize; 2]) -> Result<TensorView> {
    let scales = layer.tensor(SCALE)?;
    if let Strategy::Group(size) = strategy
        && !shape[1].is_multiple_of(size)
    {
        let reason = format!("{} input features in groups of {size}", shape[1]);
        return Err(layer.error(reason));
    }
    // One scale may be a scalar.
    let single = strategy == Strategy::Tensor && scales.elements() == 1;
    // AutoRound's scales of rows have no second dimension.
    let flat = strategy == Strategy::Channel && scales.shape() == [shape[0]];
    if !single && !flat {
        scales.expect_shape(&strategy.scale_shape(shape))?;
    }
    Ok(scales)
}
