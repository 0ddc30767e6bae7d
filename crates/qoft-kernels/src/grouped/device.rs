//! Grouped weights for GPUs.

use super::GroupedWeight;
use crate::codes::CodeMap;
use crate::device::{
    DeviceLayout, DeviceWeight, GroupLayout, GroupedLayout, HeaderWord, MapLayout, RUN, Words,
    ZeroLayout,
};
use crate::groups::{Groups, Scales, Zeros};

impl GroupedWeight {
    /// The parts in words; `None` if there are too many, or the kernels do not know them: codes of 5
    /// or 6 bits, and offsets.
    pub(super) fn words(&self) -> Option<DeviceWeight> {
        let [n, k] = self.shape;
        if matches!(self.codes.bits, 5 | 6) {
            return None;
        }
        let mut words = Words::new(self.shape, &self.codes.bytes)?;
        let map = match &self.map {
            CodeMap::Int8 => MapLayout::Int8,
            CodeMap::Unsigned => MapLayout::Unsigned,
            CodeMap::Table16(table) => {
                words.values(HeaderWord::Table, &**table);
                MapLayout::Table
            }
            CodeMap::Table256(table) => {
                words.values(HeaderWord::Table, &**table);
                MapLayout::Table
            }
        };
        let (scales, nested) = match &self.scales {
            Scales::Plain(values) => {
                words.floats(HeaderWord::Scales, values);
                (values.format(), None)
            }
            Scales::Nested {
                codes,
                table,
                absmax,
                block,
                offset,
            } => {
                words.part(HeaderWord::Scales, codes);
                words.values(HeaderWord::ScaleTable, &**table);
                words.floats(HeaderWord::Absmax, absmax);
                words.number(HeaderWord::Offset, offset.to_bits());
                (absmax.format(), Some(*block))
            }
        };
        let zeros = match &self.zeros {
            None => None,
            Some(Zeros::Offsets(_)) => return None,
            Some(Zeros::Integers(values)) => {
                words.part(HeaderWord::Zeros, values);
                Some(ZeroLayout::Bytes)
            }
            Some(Zeros::Floats(values)) => {
                words.floats(HeaderWord::Zeros, values);
                Some(ZeroLayout::Floats(values.format()))
            }
        };
        let (groups, count) = match &self.groups {
            Groups::Blocks([height, width]) => {
                let size = |size: usize, all: usize| (size < all).then_some(size);
                let groups = GroupLayout::Blocks(size(*height, n), size(*width, k));
                (groups, k.div_ceil(*width))
            }
            Groups::Flat(size) => (GroupLayout::Flat(*size), 0),
            Groups::Interleaved(count) => (GroupLayout::Interleaved, *count),
            Groups::Indexed { index, count } => {
                let index: Vec<u8> = index.iter().flat_map(|g| g.to_le_bytes()).collect();
                words.part(HeaderWord::Index, &index);
                (GroupLayout::Indexed, *count)
            }
        };
        words.number(HeaderWord::Count, u32::try_from(count).ok()?);
        words.number(HeaderWord::Factor, self.factor.unwrap_or(1.0).to_bits());
        Some(words.finish(DeviceLayout::Grouped(GroupedLayout {
            bits: self.codes.bits as usize,
            order: self.codes.order,
            map,
            groups,
            scales,
            nested,
            zeros,
            factor: self.factor.is_some(),
            rounding: self.rounding,
            whole_runs: k.is_multiple_of(RUN),
        })))
    }
}
