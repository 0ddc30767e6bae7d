//! Rounding a dense weight without calibration data.

use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, IntegerGrid, Keys, NewTensor, Result, float_dtype,
};

use crate::config::{GptqConfig, ModuleConfig};
use crate::layout::DEFAULT_GROUP_SIZE;
use crate::requantize::tensor_bytes;
use crate::words::words_of;

/// The width where the settings have none.
const DEFAULT_BITS: usize = 4;

/// A weight with the width, the groups and the version of the settings; groups follow each other.
pub fn quantize(
    dense: &DenseLayer,
    settings: &Keys,
    search: &dyn CodeSearch,
) -> Result<Vec<NewTensor>> {
    let config = GptqConfig::read(settings.clone())?;
    let ModuleConfig {
        bits,
        group_size,
        desc_act,
        sym,
    } = config.module(dense.path)?;
    if desc_act {
        let reason = "groups in the order of activations need calibration data";
        return Err(settings.error("desc_act", reason));
    }
    let bits = bits.unwrap_or(DEFAULT_BITS);
    let [n, k] = dense.weight.shape;
    // The library's kernels take whole words.
    if !n.is_multiple_of(32) || !k.is_multiple_of(32) {
        let reason = format!("sizes must be multiples of 32, found [{n}, {k}]");
        return Err(dense.error(reason));
    }
    let size = group_size.unwrap_or(DEFAULT_GROUP_SIZE).min(k);
    let groups = k.div_ceil(size);
    let mut grid = IntegerGrid {
        index: (0..k).map(|k| (k / size) as u32).collect(),
        count: groups,
        largest: ((1u32 << bits) - 1) as u8,
        format: dense.format,
        scales: vec![0.0; n * groups],
        zeros: vec![0; n * groups],
    };
    grid.fit(dense.weight, sym);
    let codes = search.codes(dense.weight, &grid);
    let [qweight, qzeros, scales] = tensor_bytes(&codes, &grid, bits, config.zero_points);
    let index: Vec<u8> = grid.index.iter().flat_map(|g| g.to_le_bytes()).collect();
    Ok(vec![
        dense.new_tensor("qweight", Dtype::I32, &[words_of(k, bits), n], qweight),
        dense.new_tensor("qzeros", Dtype::I32, &[groups, words_of(n, bits)], qzeros),
        dense.new_tensor("scales", float_dtype(grid.format), &[groups, n], scales),
        dense.new_tensor("g_idx", Dtype::I32, &[k], index),
    ])
}
