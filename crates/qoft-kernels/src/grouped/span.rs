//! Rows whose groups follow each other, in pieces.

use std::ops::Range;

use super::GroupedWeight;
use crate::decode::Runs;
use crate::groups::Groups;

/// Runs of one group that are decoded at once.
const RUNS: usize = 32;

/// A range of flat indices that lies in consecutive groups.
pub(super) struct Span {
    pub at: usize,
    end: usize,
    /// The group of the first weight, and where it ends.
    group: usize,
    group_end: usize,
    /// Size of the groups.
    size: usize,
}

impl GroupedWeight {
    /// Columns `cols` of a row, where groups follow each other.
    pub(super) fn span(&self, row: usize, cols: &Range<usize>) -> Option<Span> {
        let k = self.shape[1];
        let first = row * k;
        let (at, end) = (first + cols.start, first + cols.end);
        let (group, group_end, size) = match &self.groups {
            Groups::Blocks([height, width]) => {
                let block = cols.start / width;
                let block_end = (block + 1).saturating_mul(*width);
                let group = row / height * k.div_ceil(*width) + block;
                (group, first.saturating_add(block_end), *width)
            }
            Groups::Flat(size) => (at / size, (at / size + 1) * size, *size),
            Groups::Interleaved(_) | Groups::Indexed { .. } => return None,
        };
        Some(Span {
            at,
            end,
            group,
            group_end,
            size,
        })
    }

    /// Calls `f` with pieces of a span, the flat index at which each starts, and its length.
    pub(super) fn pieces(&self, span: Span, mut f: impl FnMut(usize, usize, Runs)) {
        let Span {
            mut at,
            end,
            mut group,
            mut group_end,
            size,
        } = span;
        let (mut scales, mut zeros) = ([0.0; RUNS], [0.0; RUNS]);
        while at < end {
            let more = end.saturating_sub(group_end).div_ceil(size);
            let count = (1 + more).min(RUNS);
            let last = group_end.saturating_add((count - 1).saturating_mul(size));
            let (scales, zeros) = (&mut scales[..count], &mut zeros[..count]);
            self.scales.read(group, scales);
            if let Some(values) = &self.zeros {
                values.read(group, zeros);
            }
            let first = group_end - at;
            let length = last.min(end) - at;
            f(
                at,
                length,
                Runs {
                    first,
                    size,
                    scales,
                    zeros,
                },
            );
            at += length;
            group += count;
            group_end = last.saturating_add(size);
        }
    }
}
