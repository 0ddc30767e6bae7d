//! Weights whose rows are blocks: a fixed number of values with all that decodes them side by side.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{WeightError, check_length, elements};
use crate::weight::{PackedWeight, WeightInfo};
use crate::wide;

/// The most values that a block has.
const LARGEST: usize = 256;

/// A format of blocks, which decode by themselves.
pub trait BlockFormat: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Values in a block, at most 256.
    const VALUES: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Bits of a code.
    const BITS: u32;
    /// Values that share a scale.
    const GROUP: usize;

    /// Decodes a block of [`Self::BYTES`] bytes into [`Self::VALUES`] values. Should be
    /// `#[inline(always)]`, to be compiled for the machine's vectors.
    fn decode(block: &[u8], out: &mut [f32]);

    /// Whether all values of a block are finite.
    fn is_finite(block: &[u8]) -> bool;
}

/// A weight of blocks, each within a row. The bytes are shared with whoever has them, such as a
/// memory map.
pub struct BlockWeight<F> {
    shape: [usize; 2],
    blocks: Bytes,
    format: PhantomData<F>,
}

impl<F: BlockFormat> BlockWeight<F> {
    /// A weight of `[out_features, in_features]`, whose rows follow each other.
    ///
    /// # Errors
    /// If the bytes are not those of so many blocks, a row does not end with a block, or a value is
    /// not finite.
    pub fn new(shape: [usize; 2], blocks: Bytes) -> Result<Self, WeightError> {
        const { assert!(F::VALUES <= LARGEST && F::VALUES > 0 && F::BYTES > 0) };
        let count = elements(shape)? / F::VALUES;
        if !shape[1].is_multiple_of(F::VALUES) {
            return Err(WeightError::Unsupported("size: rows are no whole blocks"));
        }
        check_length("blocks", count * F::BYTES, blocks.len())?;
        if !blocks.chunks_exact(F::BYTES).all(F::is_finite) {
            return Err(WeightError::NotFinite("scales"));
        }
        Ok(Self {
            shape,
            blocks,
            format: PhantomData,
        })
    }

    /// Decodes some columns of a row.
    #[inline(always)]
    fn decode_row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let bytes = self.shape[1] / F::VALUES * F::BYTES;
        let row = &self.blocks[row * bytes..][..bytes];
        let first = cols.start / F::VALUES;
        let mut blocks = row[first * F::BYTES..].chunks_exact(F::BYTES);
        let mut part = [0.0; LARGEST];
        let (mut out, skipped) = (out, cols.start % F::VALUES);
        if skipped > 0
            && let Some(block) = blocks.next()
        {
            F::decode(block, &mut part[..F::VALUES]);
            let length = out.len().min(F::VALUES - skipped);
            let (head, rest) = out.split_at_mut(length);
            head.copy_from_slice(&part[skipped..][..length]);
            out = rest;
        }
        let mut whole = out.chunks_exact_mut(F::VALUES);
        for (out, block) in whole.by_ref().zip(blocks.by_ref()) {
            F::decode(block, out);
        }
        let tail = whole.into_remainder();
        if !tail.is_empty()
            && let Some(block) = blocks.next()
        {
            F::decode(block, &mut part[..F::VALUES]);
            tail.copy_from_slice(&part[..tail.len()]);
        }
    }
}

impl<F> fmt::Debug for BlockWeight<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("BlockWeight");
        debug.field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<F: BlockFormat> PackedWeight for BlockWeight<F> {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let width = cols.len();
        if width == 0 {
            return;
        }
        wide!({
            for (row, out) in rows.clone().zip(out.chunks_exact_mut(width)) {
                self.decode_row(row, cols.clone(), out);
            }
        });
    }

    fn packed_bytes(&self) -> usize {
        self.blocks.len()
    }

    fn info(&self) -> WeightInfo {
        WeightInfo::quantized(F::BITS, Some(F::GROUP), F::NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four signed bytes times a power of two.
    struct Fours;

    impl BlockFormat for Fours {
        const NAME: &'static str = "fours";
        const VALUES: usize = 4;
        const BYTES: usize = 5;
        const BITS: u32 = 8;
        const GROUP: usize = 4;

        fn decode(block: &[u8], out: &mut [f32]) {
            for (out, code) in out.iter_mut().zip(&block[1..]) {
                *out = f32::from(*code as i8) * f32::from(block[0]);
            }
        }

        fn is_finite(block: &[u8]) -> bool {
            block[0] < 255
        }
    }

    #[test]
    fn every_tile_equals_the_definition() {
        let bytes: Vec<u8> = (0..3 * 3 * 5).map(|i| (i * 37 % 251) as u8).collect();
        let weight = BlockWeight::<Fours>::new([3, 12], bytes.clone().into()).unwrap();
        let value = |n: usize, k: usize| {
            let block = &bytes[(n * 3 + k / 4) * 5..][..5];
            f32::from(block[1 + k % 4] as i8) * f32::from(block[0])
        };
        for start in 0..12 {
            for end in start + 1..=12 {
                let mut out = vec![f32::NAN; 2 * (end - start)];
                weight.decode_tile(1..3, start..end, &mut out);
                let expected = (1..3).flat_map(|n| (start..end).map(move |k| value(n, k)));
                assert_eq!(out, expected.collect::<Vec<_>>(), "{start}..{end}");
            }
        }
    }

    #[test]
    fn wrong_sizes_and_values_are_refused() {
        let make = |shape, bytes: Vec<u8>| BlockWeight::<Fours>::new(shape, bytes.into()).err();
        assert_eq!(make([1, 4], vec![1; 5]), None);
        assert!(matches!(
            make([1, 4], vec![1; 6]),
            Some(WeightError::Length { .. })
        ));
        assert!(matches!(
            make([2, 6], vec![1; 15]),
            Some(WeightError::Unsupported(_))
        ));
        assert_eq!(make([0, 4], vec![]), Some(WeightError::Shape([0, 4])));
        assert_eq!(
            make([1, 4], vec![255; 5]),
            Some(WeightError::NotFinite("scales"))
        );
    }
}
