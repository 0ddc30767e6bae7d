//! Zero points: packed along the outputs, in one of two versions.

use std::sync::Once;

use bytes::Bytes;
use qoft_scheme::kernels::{Codes, transpose};
use qoft_scheme::{LayerSource, TensorView};

use crate::config::{GptqConfig, ZeroPoints};
use crate::layout::pack_row;

/// The zero points as bytes, `[out, groups]`.
pub fn read(
    config: &GptqConfig,
    layer: &LayerSource,
    qzeros: &TensorView,
    bits: usize,
    sizes: [usize; 2],
) -> Vec<u8> {
    let stored = unpack(qzeros.bytes(), bits, sizes);
    let zeros = match version(config, layer, &stored, bits) {
        ZeroPoints::V2 => stored,
        ZeroPoints::V1 if bits == 3 => stored.into_iter().map(|z| (z + 1) & 7).collect(),
        ZeroPoints::V1 => unpack(&plus_one(qzeros.bytes(), bits), bits, sizes),
    };
    transpose(&zeros, 1, sizes)
}

/// `qzeros` with other zero points, `[out, groups]`, in the version that it has now.
pub fn write(
    config: &GptqConfig,
    layer: &LayerSource,
    qzeros: &TensorView,
    bits: usize,
    [groups, n]: [usize; 2],
    zeros: &[u8],
) -> Vec<u8> {
    let stored = unpack(qzeros.bytes(), bits, [groups, n]);
    let version = version(config, layer, &stored, bits);
    let mut zeros = transpose(zeros, 1, [n, groups]);
    if version == ZeroPoints::V1 && bits == 3 {
        zeros.iter_mut().for_each(|z| *z = z.wrapping_sub(1) & 7);
    }
    let rows = zeros.chunks_exact(n).flat_map(|row| pack_row(row, bits));
    let words: Bytes = rows.collect::<Vec<u8>>().into();
    match version {
        ZeroPoints::V1 if bits != 3 => minus_one(&words, bits).into(),
        _ => words.into(),
    }
}

/// The fields, `[groups, out]`.
fn unpack(bytes: &Bytes, bits: usize, [groups, n]: [usize; 2]) -> Vec<u8> {
    let row_bytes = bytes.len() / groups;
    let mut fields = Vec::with_capacity(groups * n);
    for row in 0..groups {
        let row = Codes {
            bytes: bytes.slice(row * row_bytes..(row + 1) * row_bytes),
            bits: bits as u32,
        };
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

/// The version that the fields themselves give away, or else the one that the file claims.
///
/// There are files with the wrong label. A symmetric layer has the middle of the range as its
/// only zero point.
fn version(config: &GptqConfig, layer: &LayerSource, stored: &[u8], bits: usize) -> ZeroPoints {
    static WARNING: Once = Once::new();
    let middle = 1u8 << (bits - 1);
    let all = |value| config.sym && stored.iter().all(|&field| field == value);
    let found = if all(middle) {
        ZeroPoints::V2
    } else if all(middle - 1) {
        ZeroPoints::V1
    } else {
        config.zero_points
    };
    if found != config.zero_points {
        WARNING.call_once(|| {
            tracing::warn!(
                "layer `{}`: the configuration says {}, but the zero points are those of a \
                 symmetric {} layer; they are read as such, here and in other layers like it",
                layer.path(),
                config.zero_points.name(),
                found.name(),
            );
        });
    }
    found
}
