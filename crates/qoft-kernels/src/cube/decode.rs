//! Decoding runs of weights inside a kernel, with the same roundings as on the CPU.

use cubecl::prelude::*;

use super::floats::{float, round};
use crate::device::{
    CodebookLayout, DeviceLayout, GroupLayout, GroupedLayout, HEADER, HeaderWord, MapLayout, RUN,
    ZeroLayout,
};
use crate::nibble_order::NibbleOrder;

/// Where a weight is, and its shape.
#[derive(CubeType, Clone, Copy)]
pub(super) struct At {
    /// Row of the weight.
    pub row: usize,
    /// Column of the weight.
    pub col: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
}

/// The [`RUN`] weights of a row from `at` on; 0 beyond the matrix. Where rows are whole runs,
/// `at` must begin one.
#[cube]
pub(super) fn run(words: &[u32], at: At, #[comptime] layout: DeviceLayout) -> Array<f32> {
    let mut out = Array::<f32>::new(RUN);
    #[unroll]
    for i in 0..RUN {
        out[i] = 0.0;
    }
    if at.row < at.rows && at.col < at.cols {
        match layout {
            DeviceLayout::Grouped(grouped) => grouped_run(words, at, &mut out, grouped),
            DeviceLayout::Codebook(codebook) => codebook_run(words, at, &mut out, codebook),
            DeviceLayout::Dense(format) => {
                let first = at.row * at.cols + at.col;
                #[unroll]
                for i in 0..RUN {
                    if at.col + i < at.cols {
                        out[i] = float(words, HEADER, first + i, format);
                    }
                }
            }
        }
    }
    out
}

/// The word of a header.
#[cube]
fn place(words: &[u32], #[comptime] place: HeaderWord) -> usize {
    words[comptime!(place as usize)] as usize
}

/// The byte at `index` of a part that begins with word `start`.
#[cube]
fn byte(words: &[u32], start: usize, index: usize) -> u32 {
    (words[start + index / 4] >> (8 * (index % 4) as u32)) & 255
}

#[cube]
fn grouped_run(words: &[u32], at: At, out: &mut Array<f32>, #[comptime] layout: GroupedLayout) {
    let first = at.row * at.cols + at.col;
    if comptime!(uniform(&layout)) {
        let group = group(words, at, layout.groups);
        let scale = scale(words, group, layout);
        let zero = zero(words, group, layout);
        let factor = f32::reinterpret(words[comptime!(HeaderWord::Factor as usize)]);
        #[unroll]
        for i in 0..RUN {
            let number = number(words, code(words, first + i, layout), layout.map);
            out[i] = weight(number, zero, scale, factor, layout);
        }
    } else {
        #[unroll]
        for i in 0..RUN {
            if at.col + i < at.cols {
                let here = At {
                    row: at.row,
                    col: at.col + i,
                    rows: at.rows,
                    cols: at.cols,
                };
                let group = group(words, here, layout.groups);
                let scale = scale(words, group, layout);
                let zero = zero(words, group, layout);
                let factor = f32::reinterpret(words[comptime!(HeaderWord::Factor as usize)]);
                let number = number(words, code(words, first + i, layout), layout.map);
                out[i] = weight(number, zero, scale, factor, layout);
            }
        }
    }
}

/// Whether the weights of a whole run share a group.
fn uniform(layout: &GroupedLayout) -> bool {
    let whole = match layout.groups {
        GroupLayout::Blocks(_, width) => width.is_none_or(|width| width.is_multiple_of(RUN)),
        GroupLayout::Flat(size) => size.is_multiple_of(RUN),
        GroupLayout::Interleaved | GroupLayout::Indexed => false,
    };
    whole && layout.whole_runs
}

/// From the number of a code to the weight.
#[cube]
fn weight(
    number: f32,
    zero: f32,
    scale: f32,
    factor: f32,
    #[comptime] layout: GroupedLayout,
) -> f32 {
    let mut value = number;
    if comptime!(layout.zeros.is_some()) {
        value = round(value - zero, layout.rounding);
    }
    value *= scale;
    if comptime!(layout.factor) {
        value *= factor;
    }
    round(value, layout.rounding)
}

/// The code of the weight at a flat index.
#[cube]
fn code(words: &[u32], index: usize, #[comptime] layout: GroupedLayout) -> u32 {
    let bits = comptime!(layout.bits);
    let mask = comptime!((1u32 << bits) - 1);
    if comptime!(bits == 3) {
        let bit = (index % 32) * 3;
        let word = HEADER + index / 32 * 3 + bit / 32;
        let shift = (bit % 32) as u32;
        let low = words[word] >> shift;
        // A code that begins with the last two bits goes on in the next word.
        let high = words[word + 1] << (32 - max(shift, 1));
        select(shift > 29, low | high, low) & mask
    } else {
        let per = comptime!(32 / bits);
        // The other half of a byte is four bits away.
        let flip = comptime!(match layout.order {
            NibbleOrder::LowFirst => 0u32,
            NibbleOrder::HighFirst => 4u32,
        });
        let shift = ((index % per) as u32 * comptime!(bits as u32)) ^ flip;
        (words[HEADER + index / per] >> shift) & mask
    }
}

/// What a code stands for.
#[cube]
fn number(words: &[u32], code: u32, #[comptime] map: MapLayout) -> f32 {
    match map {
        MapLayout::Unsigned => f32::cast_from(code),
        MapLayout::Int8 => f32::cast_from(i32::cast_from(code ^ 128) - 128),
        MapLayout::Table => {
            f32::reinterpret(words[place(words, HeaderWord::Table) + code as usize])
        }
    }
}

/// The group of a weight.
#[cube]
fn group(words: &[u32], at: At, #[comptime] groups: GroupLayout) -> usize {
    match groups {
        GroupLayout::Blocks(height, width) => {
            let row = match height {
                Some(height) => at.row / height,
                None => 0usize.runtime(),
            };
            let col = match width {
                Some(width) => at.col / width,
                None => 0usize.runtime(),
            };
            row * place(words, HeaderWord::Count) + col
        }
        GroupLayout::Flat(size) => (at.row * at.cols + at.col) / size,
        GroupLayout::Interleaved => (at.row * at.cols + at.col) % place(words, HeaderWord::Count),
        GroupLayout::Indexed => {
            let index = words[place(words, HeaderWord::Index) + at.col] as usize;
            at.row * place(words, HeaderWord::Count) + index
        }
    }
}

#[cube]
fn scale(words: &[u32], group: usize, #[comptime] layout: GroupedLayout) -> f32 {
    let scales = place(words, HeaderWord::Scales);
    match layout.nested {
        None => float(words, scales, group, layout.scales),
        Some(block) => {
            let code = byte(words, scales, group) as usize;
            let value = f32::reinterpret(words[place(words, HeaderWord::ScaleTable) + code]);
            let absmax = float(
                words,
                place(words, HeaderWord::Absmax),
                group / block,
                layout.scales,
            );
            // The CPU rounds the product. A GPU would not where it multiplies and adds at once, so
            // its bits pass through an operation on integers.
            let product =
                u32::reinterpret(value * absmax) ^ words[comptime!(HeaderWord::Nothing as usize)];
            f32::reinterpret(product)
                + f32::reinterpret(words[comptime!(HeaderWord::Offset as usize)])
        }
    }
}

/// The zero point of a group; not used where there are none.
#[cube]
fn zero(words: &[u32], group: usize, #[comptime] layout: GroupedLayout) -> f32 {
    let zeros = place(words, HeaderWord::Zeros);
    match layout.zeros {
        None => 0.0f32.runtime(),
        Some(ZeroLayout::Bytes) => f32::cast_from(byte(words, zeros, group)),
        Some(ZeroLayout::Floats(format)) => float(words, zeros, group, format),
    }
}

#[cube]
fn codebook_run(words: &[u32], at: At, out: &mut Array<f32>, #[comptime] layout: CodebookLayout) {
    let og = comptime!(layout.out_group_size);
    let ig = comptime!(layout.in_group_size);
    let scale = float(
        words,
        place(words, HeaderWord::Scales),
        at.row / og,
        layout.scales,
    );
    let groups = at.row / og * (at.cols / ig);
    #[unroll]
    for i in 0..RUN {
        let col = at.col + i;
        if col < at.cols {
            let mut sum = 0.0f32;
            #[unroll]
            for c in 0..layout.num_codebooks {
                let code = vector(
                    words,
                    (groups + col / ig) * layout.num_codebooks + c,
                    layout,
                );
                let vector = comptime!(c << layout.nbits_per_codebook) + code;
                let index = (vector * og + at.row % og) * ig + col % ig;
                sum += float(words, place(words, HeaderWord::Table), index, layout.books);
            }
            out[i] = sum * scale;
        }
    }
}

/// The code at an index of a codebook weight.
#[cube]
fn vector(words: &[u32], index: usize, #[comptime] layout: CodebookLayout) -> usize {
    let mask = comptime!((1u32 << layout.nbits_per_codebook) - 1);
    let code = match layout.code_bytes {
        1 => byte(words, HEADER, index),
        2 => words[HEADER + index / 2] >> (16 * (index % 2) as u32),
        4 => words[HEADER + index],
        // More than four bytes of a code never count.
        _ => words[HEADER + 2 * index],
    };
    (code & mask) as usize
}
