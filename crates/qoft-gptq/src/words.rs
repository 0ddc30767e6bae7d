//! Codes in words: streams that start with the least significant bits.

use qoft_scheme::kernels::{Codes, transpose};

/// Bits of a word.
pub const WORD: usize = 32;

/// Words that hold so many codes.
pub fn words_of(codes: usize, bits: usize) -> usize {
    codes.saturating_mul(bits).div_ceil(WORD)
}

/// Codes in our order as the words of `qweight`.
pub fn pack(codes: &[u8], bits: usize, [n, k]: [usize; 2]) -> Vec<u8> {
    let words = words_of(k, bits);
    let mut stream = Vec::with_capacity(n * words * 4);
    for row in codes.chunks_exact(k) {
        stream.extend(pack_row(row, bits));
    }
    transpose(&stream, 4, [n, words])
}

/// A stream of codes, filled up to whole words.
pub fn pack_row(codes: &[u8], bits: usize) -> Vec<u8> {
    let mut bytes = Codes::pack(bits as u32, codes.iter().copied())
        .bytes
        .to_vec();
    bytes.resize(words_of(codes.len(), bits) * 4, 0);
    bytes
}
