//! The tensors of a parameter ↔ our packed form.
//!
//! A parameter `P` of `rows` rows and `k` columns, or of several such matrices, is stored as
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `P_blocks` | U8 | `[…, rows, k / 32, 16]`: two codes in a byte, the first in its low bits |
//! | `P_scales` | U8 | `[…, rows, k / 32]`: exponents (E8M0) |
//!
//! `W = number · 2^(scale − 127)`, the numbers E2M1. A linear layer has `weight` for its parameter. That of
//! several experts is the other way round in the model: `[experts, k, rows]`.

use std::sync::Arc;

use qoft_scheme::kernels::{CodeMap, Codes, FP4, GroupedWeight, Groups, Scales, powers_of_two};
use qoft_scheme::{Checkpoint, Dtype, LayerSource, PackedParameter, Result, TensorView};

/// Columns that share a scale.
pub const GROUP: usize = 32;
/// Bytes of the codes of a group.
pub const BLOCK: usize = GROUP / 2;
/// The codes of a linear layer.
pub const BLOCKS: &str = "weight_blocks";
/// Its scales.
pub const SCALES: &str = "weight_scales";
/// How names of codes end.
const OF_BLOCKS: &str = "_blocks";
/// How names of scales end.
const OF_SCALES: &str = "_scales";
/// The name that `qoft inspect` prints.
const FORMAT: &str = "mxfp4";

/// Codes and scales that fit each other.
pub struct Packed {
    /// The codes.
    blocks: TensorView,
    /// The scales.
    pub scales: TensorView,
    /// Matrices, where there are several.
    count: Option<usize>,
    /// Rows and columns of each.
    pub shape: [usize; 2],
}

impl Packed {
    /// Whether the tensors are those of a linear layer, perhaps damaged.
    pub fn claims(layer: &LayerSource) -> bool {
        // Other schemes have scales of this name beside a `weight`.
        layer.has(BLOCKS) || layer.has(SCALES) && !layer.has("weight")
    }

    /// The tensors of a linear layer.
    ///
    /// # Errors
    /// If one is missing or does not fit the other, or there are several matrices.
    pub fn of_layer(layer: &LayerSource) -> Result<Self> {
        let found = Self::new(layer.tensor(BLOCKS)?, layer.tensor(SCALES)?)?;
        match found.count {
            None => Ok(found),
            Some(count) => {
                let reason = format!(
                    "the weights of {count} experts, which adapters do not train: only linear layers \
                     are trained, whose `{BLOCKS}` is [out_features, in_features / {GROUP}, {BLOCK}]"
                );
                Err(layer.error(reason))
            }
        }
    }

    fn new(blocks: TensorView, scales: TensorView) -> Result<Self> {
        blocks.expect_dtype(&[Dtype::U8])?;
        scales.expect_dtype(&[Dtype::U8])?;
        let (count, [rows, groups]) = match *blocks.shape() {
            [rows, groups, BLOCK] => (None, [rows, groups]),
            [count, rows, groups, BLOCK] => (Some(count), [rows, groups]),
            _ => {
                let expected = format!("[rows, groups, {BLOCK}], or several of it");
                return Err(blocks.error(expected, blocks.shown_shape()));
            }
        };
        let shape = blocks.shape();
        scales.expect_shape(&shape[..shape.len() - 1])?;
        let columns = groups.checked_mul(GROUP).filter(|_| blocks.elements() > 0);
        let columns = columns.ok_or_else(|| blocks.error("blocks", blocks.shown_shape()))?;
        Ok(Self {
            blocks,
            scales,
            count,
            shape: [rows, columns],
        })
    }

    /// A linear layer's matrix. Codes and scales stay on the memory map.
    ///
    /// # Errors
    /// If a scale is no number.
    pub fn matrix(&self) -> Result<GroupedWeight> {
        self.matrix_at(0)
    }

    fn matrix_at(&self, index: usize) -> Result<GroupedWeight> {
        let [rows, columns] = self.shape;
        let part = |tensor: &TensorView, length: usize| {
            tensor.bytes().slice(index * length..(index + 1) * length)
        };
        let codes = Codes::new(part(&self.blocks, rows * columns / 2), 4);
        let scales = part(&self.scales, rows * columns / GROUP);
        if let Some(at) = scales.iter().position(|&scale| scale == u8::MAX) {
            let found = format!("255, which is no number, at byte {at}");
            return Err(self.scales.error("exponents below 255", found));
        }
        let scales = Scales::coded(scales, powers_of_two())?;
        let map = CodeMap::Table16(Box::new(FP4));
        let groups = Groups::Blocks([1, GROUP]);
        let parts = GroupedWeight::builder(self.shape, codes, map, groups, scales);
        Ok(parts.build(FORMAT)?)
    }
}

/// The parameter that the tensor `name` is a part of, if it is no linear layer's.
///
/// # Errors
/// If a part is missing or does not fit the other, or a scale is no number.
pub fn parameter(checkpoint: &Checkpoint, name: &str) -> Result<Option<PackedParameter>> {
    let ending = |ending| name.strip_suffix(ending);
    let Some(parameter) = ending(OF_BLOCKS).or_else(|| ending(OF_SCALES)) else {
        return Ok(None);
    };
    let parts = [OF_BLOCKS, OF_SCALES].map(|ending| format!("{parameter}{ending}"));
    let [blocks, scales] = &parts;
    // Another scheme's scales.
    if checkpoint.get(blocks).is_none() {
        return Ok(None);
    }
    let packed = Packed::new(checkpoint.tensor(blocks)?, checkpoint.tensor(scales)?)?;
    let matrices = (0..packed.count.unwrap_or(1)).map(|index| {
        let matrix = packed.matrix_at(index)?;
        Ok(Arc::new(matrix) as _)
    });
    let matrices = matrices.collect::<Result<Vec<_>>>()?;
    Ok(Some(match packed.count {
        Some(_) => PackedParameter::experts(parameter, parts, matrices),
        None => PackedParameter::matrix(parameter, parts, matrices[0].clone()),
    }))
}
