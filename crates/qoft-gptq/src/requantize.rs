//! Rounding a changed weight to a layer's bits, groups and zero points.
//!
//! The library's own algorithm needs calibration data. Without it, [`IntegerGrid::fit`] chooses the
//! scales; its plain range, as in the library's quantizer, is one of those tried.

use qoft_scheme::kernels::{Matrix, transpose};
use qoft_scheme::{IntegerGrid, LayerSource, NewTensor, QuantBackend, RequantizeOptions, Result};

use crate::layout::{Parts, pack};
use crate::zeros;

/// The layer again, with its width, groups, scale dtype and version of the zero points. Layers
/// whose zero points are all in the middle keep them.
pub fn requantize(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
    options: &RequantizeOptions,
) -> Result<Vec<NewTensor>> {
    let parts = Parts::read(backend, layer)?;
    let (bits, groups, [n, k]) = (parts.bits, parts.groups, parts.shape);
    layer.check_weight(backend, weight, parts.shape)?;
    let zeros = zeros::read(&parts.config, layer, &parts.qzeros, bits, [groups, n]);
    let symmetric = zeros.iter().all(|&zero| zero == 1 << (bits - 1));
    let stored = parts.scales.floats()?;
    let mut scales = vec![0.0; n * groups];
    stored.transposed(groups, n).read(0, &mut scales);
    let mut grid = IntegerGrid {
        index: parts.group_of_each(layer)?.into(),
        count: groups,
        largest: ((1u32 << bits) - 1) as u8,
        format: stored.format(),
        scales,
        zeros,
    };
    grid.fit(weight, symmetric);
    let codes = options.search.codes(weight, &grid);

    // A fit takes finite scales only.
    let scales = stored.format().to_bytes(&grid.scales);
    let scales = transpose(&scales, stored.format().size(), [n, groups]);
    let size = [groups, n];
    let zeros = zeros::write(&parts.config, layer, &parts.qzeros, bits, size, &grid.zeros);
    let mut tensors = vec![
        layer.rewritten("qweight", pack(&codes, bits, [n, k]))?,
        layer.rewritten("qzeros", zeros)?,
        layer.rewritten("scales", scales)?,
    ];
    if layer.has("g_idx") {
        tensors.push(layer.copy("g_idx")?);
    }
    Ok(tensors)
}
