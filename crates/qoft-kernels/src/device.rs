//! Weights as GPUs read them: one buffer of 32-bit words, and how it is decoded.

use crate::floats::{FloatFormat, Floats};
use crate::nibble_order::NibbleOrder;

/// Words before the codes.
pub(crate) const HEADER: usize = HeaderWord::ALL;

/// What the words of the header say: where parts of the weight begin, and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum HeaderWord {
    /// Scales, or the codes of nested ones.
    Scales,
    /// Values of the nested scales' codes.
    ScaleTable,
    /// One number for each block of nested scales.
    Absmax,
    /// The bits of what is added to nested scales.
    Offset,
    /// Zero points.
    Zeros,
    /// The numbers that codes stand for, or the codebooks.
    Table,
    /// The group of each input feature.
    Index,
    /// Groups: in a row, of blocks or features, or in all.
    Count,
    /// The bits of the factor of all weights.
    Factor,
    /// Always 0, which compilers of kernels do not know.
    Nothing,
}

impl HeaderWord {
    const ALL: usize = Self::Nothing as usize + 1;
}

/// A weight that a GPU decodes: [`DeviceLayout`] says how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceWeight {
    /// A header, the codes, and all else.
    pub words: Vec<u32>,
    /// How the words are read.
    pub layout: DeviceLayout,
}

/// How words become weights. Kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceLayout {
    /// A [`GroupedWeight`](crate::GroupedWeight).
    Grouped(GroupedLayout),
    /// A [`CodebookWeight`](crate::CodebookWeight).
    Codebook(CodebookLayout),
    /// A [`DenseWeight`](crate::DenseWeight).
    Dense(FloatFormat),
}

/// How a [`GroupedWeight`](crate::GroupedWeight) is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GroupedLayout {
    /// Bits of a code.
    pub bits: usize,
    /// The order of codes of 4 bits.
    pub order: NibbleOrder,
    /// What codes stand for.
    pub map: MapLayout,
    /// Who shares a scale.
    pub groups: GroupLayout,
    /// Dtype of the scales, or of the blocks' scales if they are nested.
    pub scales: FloatFormat,
    /// How many nested scales share a number; `None`: they are not nested.
    pub nested: Option<usize>,
    /// How zero points are stored.
    pub zeros: Option<ZeroLayout>,
    /// Whether all weights have a factor.
    pub factor: bool,
    /// Rounding, after the subtraction and at the end.
    pub rounding: FloatFormat,
    /// Rows are whole runs of [`RUN`] weights.
    pub whole_runs: bool,
}

/// Weights of a row that are decoded together.
pub const RUN: usize = 8;

/// What codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapLayout {
    /// Unsigned integers.
    Unsigned,
    /// Signed 8-bit integers.
    Int8,
    /// Entries of a table.
    Table,
}

/// Who shares a scale; [`Groups`](crate::Groups) explains the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupLayout {
    /// Blocks of rows and columns; `None`: all of them.
    Blocks(Option<usize>, Option<usize>),
    /// Runs of the flattened matrix.
    Flat(usize),
    /// Groups that take turns.
    Interleaved,
    /// Any assignment.
    Indexed,
}

/// How zero points are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ZeroLayout {
    /// As bytes.
    Bytes,
    /// As floats.
    Floats(FloatFormat),
}

/// How a [`CodebookWeight`](crate::CodebookWeight) is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CodebookLayout {
    /// Outputs that a vector covers.
    pub out_group_size: usize,
    /// Inputs that a vector covers.
    pub in_group_size: usize,
    /// Vectors that are added up.
    pub num_codebooks: usize,
    /// Bits of a code that count.
    pub nbits_per_codebook: usize,
    /// Bytes that a code is stored in.
    pub code_bytes: usize,
    /// Dtype of the codebooks.
    pub books: FloatFormat,
    /// Dtype of the scales.
    pub scales: FloatFormat,
}

/// Puts the words together.
pub(crate) struct Words(Vec<u32>);

impl Words {
    /// An empty header and the codes. `None` if a kernel could not count the weights or their
    /// bytes in 32 bits.
    pub fn new(shape: [usize; 2], codes: &[u8]) -> Option<Self> {
        let weights = shape[0].checked_mul(shape[1])?;
        u32::try_from(weights.max(codes.len())).ok()?;
        let mut words = Self(vec![0; HEADER]);
        words.push(codes);
        // A code of 3 bits is looked for in two words.
        words.0.push(0);
        Some(words)
    }

    /// Appends bytes and notes where they begin.
    pub fn part(&mut self, place: HeaderWord, bytes: &[u8]) {
        self.0[place as usize] = self.0.len() as u32;
        self.push(bytes);
    }

    /// Appends floats in their own dtype.
    pub fn floats(&mut self, place: HeaderWord, values: &Floats) {
        self.part(place, values.bytes());
    }

    /// Appends 32-bit floats.
    pub fn values(&mut self, place: HeaderWord, values: &[f32]) {
        self.part(place, &FloatFormat::F32.to_bytes(values));
    }

    /// Notes a number.
    pub fn number(&mut self, place: HeaderWord, value: u32) {
        self.0[place as usize] = value;
    }

    /// The weight.
    pub fn finish(self, layout: DeviceLayout) -> DeviceWeight {
        DeviceWeight {
            words: self.0,
            layout,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<4>();
        self.0.reserve(whole.len() + 2);
        self.0.extend(whole.iter().map(|b| u32::from_le_bytes(*b)));
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.0.push(u32::from_le_bytes(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_the_codes_and_begin_at_words() {
        let mut words = Words::new([1, 5], &[1, 2, 3, 4, 5]).unwrap();
        words.part(HeaderWord::Zeros, &[6]);
        words.values(HeaderWord::Table, &[1.0]);
        words.number(HeaderWord::Count, 7);
        let words = words.finish(DeviceLayout::Dense(FloatFormat::F32)).words;
        let zeros = HEADER + 3;
        assert_eq!(words[HEADER..zeros], [0x0403_0201, 5, 0]);
        assert_eq!(words[HeaderWord::Zeros as usize] as usize, zeros);
        assert_eq!(words[HeaderWord::Table as usize] as usize, zeros + 1);
        assert_eq!(words[zeros..], [6, 1.0f32.to_bits()]);
        assert_eq!(words[HeaderWord::Count as usize], 7);
        assert!(Words::new([1 << 17, 1 << 16], &[]).is_none());
    }
}
