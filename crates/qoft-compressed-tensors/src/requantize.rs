//! Quantizing a changed weight of a layer.

use qoft_scheme::kernels::{FloatFormat, Matrix, code_pairs, transpose};
use qoft_scheme::{IntegerGrid, KeptBlocks, NewTensor, Requantize, Result};

use crate::floats::{FloatLayer, ScaleKind};
use crate::grids::{FloatBlocks, IntegerBlocks, global_scale, stored_scales};
use crate::integers::{IntegerLayer, StoredCodes};
use crate::layout::CtLayer;
use crate::scheme::Strategy;
use crate::tensors::{GLOBAL, PACKED, SCALE, WEIGHT, ZERO};

/// 448 by the largest number that is rounded to it.
const ROUNDED_DOWN: f32 = 448.0 / 464.0;

/// The layer again, with its format, groups and dtypes.
///
/// # Errors
/// If a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &CtLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    match parsed {
        CtLayer::Integers(layer) => layer.rewritten(weight, how),
        CtLayer::Floats(layer) => layer.rewritten(weight, how),
    }
}

impl IntegerLayer {
    /// Groups within rows get the scales and zero points that fit best; larger blocks those of the
    /// library's rule.
    fn rewritten(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let format = self.scales.float_format()?;
        let (old_scales, old_zeros) = (self.scales.to_finite_f32()?, self.unsigned_zeros());
        let symmetric = self.zeros.is_none();
        let (codes, scales, zeros) = if self.strategy.blocks()[0] == 1 {
            let mut grid = IntegerGrid::new(
                self.shape[0],
                self.group_of_each(),
                self.groups(),
                self.bits,
                format,
            )
            .starting_from(old_scales, old_zeros);
            let codes = grid.requantize(weight, symmetric, how.search);
            (codes, grid.scales, grid.zeros)
        } else {
            let blocks = self.strategy.blocks();
            let mut grid = IntegerBlocks::new(weight, blocks, self.bits, symmetric, format);
            let middle = f32::from(self.middle());
            for block in KeptBlocks::new(weight, &*self.packed()?, blocks).iter() {
                grid.set(
                    block,
                    old_scales[block],
                    f32::from(old_zeros[block]) - middle,
                );
            }
            let zeros = grid
                .zeros
                .iter()
                .map(|zero| (zero + middle) as u8)
                .collect();
            (how.search.codes(weight, &grid), grid.scales, zeros)
        };
        let layer = &how.current;
        let mut changed = vec![
            match &self.codes {
                StoredCodes::Words(_, fields) => {
                    layer.rewritten(PACKED, fields.write(&codes, self.shape[1]))?
                }
                StoredCodes::Bytes(_) => layer.rewritten(WEIGHT, self.signed(&codes))?,
            },
            layer.rewritten(SCALE, format.to_bytes(&scales))?,
        ];
        if !symmetric {
            changed.push(layer.rewritten(ZERO, self.zero_bytes(&zeros))?);
        }
        layer.with_rest(changed)
    }

    /// Unsigned codes as signed bytes.
    fn signed(&self, codes: &[u8]) -> Vec<u8> {
        let middle = self.middle();
        codes.iter().map(|code| code.wrapping_sub(middle)).collect()
    }

    /// Unsigned zero points as they are stored.
    fn zero_bytes(&self, zeros: &[u8]) -> Vec<u8> {
        match &self.codes {
            StoredCodes::Words(_, fields) if self.strategy != Strategy::Tensor => {
                packed_zeros(*fields, zeros, self.shape[0])
            }
            _ => self.signed(zeros),
        }
    }
}

/// Zero points `[out, groups]` down the columns of words.
pub fn packed_zeros(fields: crate::fields::Fields, zeros: &[u8], n: usize) -> Vec<u8> {
    let groups = zeros.len() / n;
    let columns = transpose(zeros, 1, [n, groups]);
    transpose(&fields.write(&columns, n), 4, [groups, fields.words(n)])
}

impl FloatLayer {
    fn rewritten(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let kind = self.kind_for(weight);
        let mut grid = FloatBlocks::new(weight, self.blocks, kind, self.in_pairs, self.rounding());
        if kind == self.kind {
            let stored = match stored_scales(self.scales.bytes(), kind) {
                Some(stored) => stored,
                None => self.scales.to_finite_f32()?,
            };
            for block in KeptBlocks::new(weight, &*self.packed()?, self.blocks).iter() {
                grid.set(block, stored[block]);
            }
        }
        let codes = how.search.codes(weight, &grid);
        let layer = &how.current;
        let mut changed = vec![
            match self.in_pairs {
                true => layer.rewritten(PACKED, code_pairs(&codes))?,
                false => layer.rewritten(WEIGHT, codes)?,
            },
            layer.rewritten(SCALE, grid.scale_bytes())?,
        ];
        if let ScaleKind::Fp8Over(global) = kind {
            changed.push(layer.rewritten(GLOBAL, global.to_le_bytes().to_vec())?);
        }
        layer.with_rest(changed)
    }

    /// The scale of all scales stays, since layers that are computed together share it, unless a
    /// weight has grown so much that its scale would be too large.
    fn kind_for(&self, weight: &Matrix) -> ScaleKind {
        match self.kind {
            ScaleKind::Fp8Over(global) => {
                let needed = global_scale(weight, FloatFormat::F32);
                let large = needed < global * ROUNDED_DOWN;
                ScaleKind::Fp8Over(if large { needed } else { global })
            }
            kind => kind,
        }
    }
}
