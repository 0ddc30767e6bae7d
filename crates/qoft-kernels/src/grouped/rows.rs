//! Products of one row of activations with rows of 4-bit codes.

use std::ops::Range;

use super::GroupedWeight;
use crate::decode::{BLOCK, NibbleRows, Spread};
use crate::groups::Groups;

/// Groups whose scales are read together, at most.
const PARTS: usize = 512;

/// Rows of whole blocks in groups of whole blocks.
pub(super) struct WholeRows<'a> {
    numbers: &'a [f32; 16],
    /// Weights of a group, where it does not end with its row.
    size: usize,
    /// Groups of a row.
    count: usize,
    /// Whether the groups of all rows follow each other.
    in_order: bool,
}

impl GroupedWeight {
    /// How [`Self::dot_whole`] takes the rows, if it can.
    pub(super) fn whole_rows(&self) -> Option<WholeRows<'_>> {
        let k = self.shape[1];
        let numbers = self.small.as_ref().filter(|_| self.codes.bits == 4)?;
        let (size, in_order) = match &self.groups {
            Groups::Blocks([height, width]) => ((*width).min(k), *height == 1),
            // Groups that straddle rows are taken in parts that do not.
            Groups::Flat(size) => (common_divisor(*size, k), k.is_multiple_of(*size)),
            Groups::Interleaved(_) | Groups::Indexed { .. } => return None,
        };
        let whole = k > 0 && k.is_multiple_of(BLOCK) && size.is_multiple_of(BLOCK);
        let count = k.div_ceil(size.max(1));
        (whole && count <= PARTS).then_some(WholeRows {
            numbers,
            size,
            count,
            in_order,
        })
    }

    /// The product of each row with activations.
    pub(super) fn dot_whole(
        &self,
        whole: &WholeRows,
        rows: Range<usize>,
        x: &[Spread],
        out: &mut [f32],
    ) {
        let (blocks, _) = self.codes.bytes.as_chunks();
        let (mut scales, mut zeros) = ([0.0; PARTS], [0.0; PARTS]);
        let most = PARTS / whole.count;
        for (i, out) in out.chunks_mut(most).enumerate() {
            let row = rows.start + i * most;
            let parts = out.len() * whole.count;
            let (scales, zeros) = (&mut scales[..parts], &mut zeros[..parts]);
            self.read_parts_of(whole, row, scales, zeros);
            let rows = NibbleRows {
                codes: self.small_codes(whole.numbers),
                blocks: &blocks[row * x.len()..][..out.len() * x.len()],
                x,
                size: whole.size / BLOCK,
                scales,
                zeros,
            };
            rows.dot(out);
        }
    }

    /// The scales and zero points of rows from `row` on.
    fn read_parts_of(&self, whole: &WholeRows, row: usize, scales: &mut [f32], zeros: &mut [f32]) {
        let first = row * whole.count;
        if whole.in_order {
            self.scales.read(first, scales);
            if let Some(values) = &self.zeros {
                values.read(first, zeros);
            }
            return;
        }
        let group = |part: usize| match &self.groups {
            Groups::Flat(size) => part * whole.size / size,
            Groups::Blocks([height, _]) => {
                part / whole.count / height * whole.count + part % whole.count
            }
            Groups::Interleaved(_) | Groups::Indexed { .. } => part,
        };
        self.read_parts(|i| group(first + i), scales, zeros);
    }
}

/// The greatest common divisor.
fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
