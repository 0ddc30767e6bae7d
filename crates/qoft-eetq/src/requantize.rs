//! Quantizing a changed weight as EETQ does.

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{NewTensor, Requantize, Result};

use crate::cut::SCALES;
use crate::layout::EetqLayer;
use crate::quantize::ChannelGrid;

/// The layer again, in the order and scale dtype that it has. The bytes of layers that were
/// cut from the same matrix change with its codes; their codes and scales stay.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &EetqLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let layer = &how.current;
    let cut = parsed.cut.within(layer, parsed.name)?;
    let format = parsed.scales.float_format()?;
    let grid = ChannelGrid::new(weight, format)?;
    let codes = how.search.codes(weight, &grid);
    let parts = cut.layers.iter().zip(cut.with_codes(parsed.order, &codes));
    let tensors = parts.map(|(path, bytes)| layer.sibling(path).rewritten(parsed.name, bytes));
    let scales = layer.rewritten(SCALES, grid.scale_bytes());
    layer.with_rest(tensors.chain([scales]).collect::<Result<_>>()?)
}
