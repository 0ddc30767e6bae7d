//! From words that hold codes of distant weights to a stream in the order of the weights.
//!
//! The words have the order of one block of the reshaped weight, and a block is a run of the
//! flattened one. So the stream is the highest field of all words, then the next field of all
//! words, and so on.

use qoft_scheme::kernels::wide;
use rayon::prelude::*;

use crate::config::Packing;

/// Words that a thread makes at a time.
const SHARE: usize = 1 << 16;

/// The first `count` codes of the words, least significant bits first.
pub fn repack(words: &[u8], packing: Packing, count: usize) -> Vec<u8> {
    let bits = packing.bits() as usize;
    let block = words.len() * 8 / packing.dtype().bitsize();
    let mut stream = Stream::with_room(count * bits);
    for field in 0..packing.per_word() {
        let shift = bits * (packing.per_word() - 1 - field);
        let codes = block.min(count.saturating_sub(block * field));
        match packing {
            Packing::EightBits => stream.bytes::<8>(&words[..codes], shift),
            Packing::FourBits => stream.bytes::<4>(&words[..codes], shift),
            Packing::ThreeBits => stream.long_words::<3>(&words[..4 * codes], shift),
            Packing::TwoBits => stream.bytes::<2>(&words[..codes], shift),
            Packing::OneBit => stream.bytes::<1>(&words[..codes], shift),
        }
    }
    stream.finish()
}

/// The words that the library stores for codes of a weight reshaped to so many rows: they are cut
/// into blocks of rows, and the first block has the most significant bits.
pub fn pack(codes: &[u8], rows: usize, packing: Packing) -> Vec<u8> {
    let (per_word, cols) = (packing.per_word(), codes.len() / rows);
    let block = rows.div_ceil(per_word) * cols;
    match packing.dtype().bitsize() / 8 {
        1 => in_words::<1>(codes, block, packing),
        _ => in_words::<4>(codes, block, packing),
    }
}

/// A word of so many bytes for each code of the first block.
fn in_words<const BYTES: usize>(codes: &[u8], block: usize, packing: Packing) -> Vec<u8> {
    let mut words = vec![0; block * BYTES];
    let shares = words.par_chunks_mut(SHARE * BYTES).enumerate();
    shares.for_each(|(share, words)| {
        let first = share * SHARE;
        let words = words.as_chunks_mut::<BYTES>().0;
        for field in 0..packing.per_word() {
            let shift = packing.bits() as usize * (packing.per_word() - 1 - field);
            let codes = codes.get(field * block + first..).unwrap_or_default();
            wide!(for (word, &code) in words.iter_mut().zip(codes) {
                put(word, u32::from(code) << shift);
            });
        }
    });
    words
}

/// Sets bits of a word, least significant byte first.
#[inline(always)]
fn put<const BYTES: usize>(word: &mut [u8; BYTES], bits: u32) {
    for (byte, bits) in word.iter_mut().zip(bits.to_le_bytes()) {
        *byte |= bits;
    }
}

/// A bit stream that is being written.
struct Stream {
    bytes: Vec<u8>,
    /// Fewer than eight bits that do not fill a byte yet.
    rest: u64,
    filled: usize,
}

impl Stream {
    fn with_room(bits: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bits.div_ceil(8)),
            rest: 0,
            filled: 0,
        }
    }

    /// Appends a field of words of one byte.
    fn bytes<const BITS: usize>(&mut self, words: &[u8], shift: usize) {
        let (eights, tail) = words.as_chunks::<8>();
        self.eights::<BITS>(eights.iter().map(|&words| {
            let codes = (u64::from_le_bytes(words) >> shift) & lanes::<BITS>(1);
            together::<BITS>(codes)
        }));
        for &word in tail {
            self.push::<BITS>(u64::from(word) >> shift);
        }
    }

    /// Appends a field of words of four bytes.
    fn long_words<const BITS: usize>(&mut self, words: &[u8], shift: usize) {
        let code = |word: [u8; 4]| u64::from(u32::from_le_bytes(word) >> shift) & mask(BITS);
        let (eights, tail) = words.as_chunks::<4>().0.as_chunks::<8>();
        self.eights::<BITS>(eights.iter().map(|words| {
            let codes = words.iter().enumerate();
            codes.fold(0, |all, (i, &word)| all | code(word) << (BITS * i))
        }));
        for &word in tail {
            self.push::<BITS>(code(word));
        }
    }

    /// Appends eight codes at a time.
    fn eights<const BITS: usize>(&mut self, codes: impl Iterator<Item = u64>) {
        let (mut rest, filled) = (self.rest, self.filled);
        for eight in codes {
            rest |= eight << filled;
            self.bytes.extend_from_slice(&rest.to_le_bytes()[..BITS]);
            rest = rest.unbounded_shr(8 * BITS as u32);
        }
        self.rest = rest;
    }

    fn push<const BITS: usize>(&mut self, code: u64) {
        self.rest |= (code & mask(BITS)) << self.filled;
        self.filled += BITS;
        if self.filled >= 8 {
            self.bytes.push(self.rest as u8);
            self.rest >>= 8;
            self.filled -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.rest as u8);
        }
        self.bytes
    }
}

/// A number of so many ones.
const fn mask(bits: usize) -> u64 {
    u64::MAX >> (64 - bits)
}

/// Ones for `count` codes at the start of every lane of `count` bytes.
const fn lanes<const BITS: usize>(count: usize) -> u64 {
    let (mut lanes, mut at) = (0, 0);
    while at < 64 {
        lanes |= mask(BITS * count) << at;
        at += 8 * count;
    }
    lanes
}

/// Moves eight codes that lie in a byte each next to each other.
fn together<const BITS: usize>(codes: u64) -> u64 {
    let pairs = (codes | codes >> (8 - BITS)) & lanes::<BITS>(2);
    let fours = (pairs | pairs >> (16 - 2 * BITS)) & lanes::<BITS>(4);
    (fours | fours >> (32 - 4 * BITS)) & mask(8 * BITS)
}

#[cfg(test)]
mod tests {
    use qoft_scheme::kernels::Codes;

    use super::*;

    #[test]
    fn codes_come_back_in_the_order_of_the_weights() {
        for (packing, rows) in [
            (Packing::EightBits, 3),
            (Packing::FourBits, 6),
            (Packing::TwoBits, 8),
            (Packing::OneBit, 16),
            (Packing::ThreeBits, 7),
            (Packing::ThreeBits, 10),
            (Packing::ThreeBits, 11),
            (Packing::ThreeBits, 29),
        ] {
            for cols in [1, 3, 8, 13, 64] {
                let bits = packing.bits();
                let codes: Vec<u8> = (0..rows * cols)
                    .map(|i| ((i * 37 + 11) % (1 << bits)) as u8)
                    .collect();
                let words = pack(&codes, rows, packing);
                let stream = repack(&words, packing, codes.len());
                let expected = Codes::pack(bits, codes).bytes;
                assert_eq!(stream, expected, "{packing:?}, {rows} rows of {cols}");
                assert_eq!(stream.capacity(), stream.len());
            }
        }
    }
}
