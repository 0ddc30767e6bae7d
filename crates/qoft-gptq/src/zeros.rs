//! Zero points: packed along the outputs, in one of two versions.

use bytes::Bytes;
use qoft_scheme::kernels::{Codes, transpose};

use crate::config::ZeroPoints;
use crate::words::{WORD, pack_row};

/// The zero points as bytes, `[out, groups]`.
pub fn read(version: ZeroPoints, words: &Bytes, bits: usize, sizes: [usize; 2]) -> Vec<u8> {
    let zeros = match version {
        ZeroPoints::V2 => unpack(words, bits, sizes),
        ZeroPoints::V1 if straddles(bits) => {
            let stored = unpack(words, bits, sizes).into_iter();
            stored.map(|z| (z + 1) & mask(bits)).collect()
        }
        ZeroPoints::V1 => unpack(&plus_one(words, bits), bits, sizes),
    };
    transpose(&zeros, 1, sizes)
}

/// The words of zero points `[out, groups]`.
pub fn write(version: ZeroPoints, zeros: &[u8], bits: usize, [groups, n]: [usize; 2]) -> Vec<u8> {
    let mut zeros = transpose(zeros, 1, [n, groups]);
    if version == ZeroPoints::V1 && straddles(bits) {
        zeros
            .iter_mut()
            .for_each(|z| *z = z.wrapping_sub(1) & mask(bits));
    }
    let rows = zeros.chunks_exact(n).flat_map(|row| pack_row(row, bits));
    let words: Bytes = rows.collect::<Vec<u8>>().into();
    match version {
        ZeroPoints::V1 if !straddles(bits) => minus_one(&words, bits).into(),
        _ => words.into(),
    }
}

/// Whether some fields lie in two words, so that words cannot be added to as a whole.
fn straddles(bits: usize) -> bool {
    !WORD.is_multiple_of(bits)
}

/// The largest field.
fn mask(bits: usize) -> u8 {
    (1u8 << bits) - 1
}

/// The fields, `[groups, out]`.
pub fn unpack(bytes: &Bytes, bits: usize, [groups, n]: [usize; 2]) -> Vec<u8> {
    let row_bytes = bytes.len() / groups;
    let mut fields = Vec::with_capacity(groups * n);
    for row in 0..groups {
        let row = Codes::new(
            bytes.slice(row * row_bytes..(row + 1) * row_bytes),
            bits as u32,
        );
        fields.extend((0..n).map(|column| row.get(column)));
    }
    fields
}

/// Adds one to all fields of a word at once. The library subtracts it so: a zero point of 0
/// borrows from its neighbour, which gets that back here.
fn plus_one(bytes: &Bytes, bits: usize) -> Bytes {
    change_words(bytes, |word| word.wrapping_add(ones(bits)))
}

/// Undoes [`plus_one`].
fn minus_one(bytes: &Bytes, bits: usize) -> Bytes {
    change_words(bytes, |word| word.wrapping_sub(ones(bits)))
}

/// A one in each field.
fn ones(bits: usize) -> u32 {
    u32::MAX / ((1 << bits) - 1)
}

fn change_words(bytes: &Bytes, change: impl Fn(u32) -> u32) -> Bytes {
    let words = bytes.as_chunks::<4>().0.iter();
    let changed = words.map(|word| change(u32::from_le_bytes(*word)).to_le_bytes());
    Vec::from_iter(changed).into_flattened().into()
}
