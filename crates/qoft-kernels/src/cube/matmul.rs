//! Products with a packed weight: tiles are decoded into shared memory.

use cubecl::prelude::*;

use super::decode::{At, run};
use crate::device::{DeviceLayout, RUN};

/// Rows and columns of the tile of the output that a workgroup computes.
pub(super) const TILE: usize = 64;
/// Terms of the sums that are in shared memory at once.
const DEPTH: usize = 32;
/// Units along each side of a tile.
pub(super) const SIDE: usize = 16;
const UNITS: usize = SIDE * SIDE;
/// Rows and columns of a tile that a unit computes.
const EACH: usize = TILE / SIDE;
/// Distance between rows of the left tile, so that neighbours lie in different banks.
const STRIDE: usize = DEPTH + 1;

/// `out = x · Wᵀ`, or with `transpose` `x · W`, for a weight of `[n, k]` and `m` rows.
#[cube(launch)]
pub(super) fn tiled(
    x: &[f32],
    words: &[u32],
    out: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
    #[comptime] layout: DeviceLayout,
    #[comptime] transpose: bool,
) {
    let unit = UNIT_POS as usize;
    let (from, to) = if comptime!(transpose) { (n, k) } else { (k, n) };
    let first_row = CUBE_POS_Y as usize * TILE;
    let first_col = CUBE_POS_X as usize * TILE;
    let mut left = Shared::<[f32]>::new_slice(comptime!(TILE * STRIDE));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * TILE));
    let mut sums = Array::<f32>::new(comptime!(EACH * EACH));
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        sums[i] = 0.0;
    }
    // Units are spread over a tile with the distance SIDE: neighbours read neighbours.
    let (unit_row, unit_col) = (unit / SIDE, unit % SIDE);
    for step in 0..from.div_ceil(DEPTH) {
        let start = step * DEPTH;
        #[unroll]
        for i in 0..comptime!(TILE * DEPTH / UNITS) {
            let element = unit + i * UNITS;
            let (row, term) = (element / DEPTH, element % DEPTH);
            let mut value = 0.0f32;
            if first_row + row < m && start + term < from {
                value = x[(first_row + row) * from + start + term];
            }
            left[row * STRIDE + term] = value;
        }
        if comptime!(transpose) {
            let (term, col) = (unit / (TILE / RUN), unit % (TILE / RUN) * RUN);
            let at = At {
                row: start + term,
                col: first_col + col,
                rows: n,
                cols: k,
            };
            let values = run(words, at, layout);
            #[unroll]
            for i in 0..RUN {
                right[term * TILE + col + i] = values[i];
            }
        } else {
            let (col, term) = (unit % TILE, unit / TILE * RUN);
            let at = At {
                row: first_col + col,
                col: start + term,
                rows: n,
                cols: k,
            };
            let values = run(words, at, layout);
            #[unroll]
            for i in 0..RUN {
                right[(term + i) * TILE + col] = values[i];
            }
        }
        sync_cube();
        for term in 0..DEPTH {
            #[unroll]
            for i in 0..EACH {
                let a = left[(unit_row + i * SIDE) * STRIDE + term];
                #[unroll]
                for j in 0..EACH {
                    let b = right[term * TILE + unit_col + j * SIDE];
                    sums[i * EACH + j] += a * b;
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..EACH {
        #[unroll]
        for j in 0..EACH {
            let row = first_row + unit_row + i * SIDE;
            let col = first_col + unit_col + j * SIDE;
            if row < m && col < to {
                out[row * to + col] = sums[i * EACH + j];
            }
        }
    }
}

/// Units of a workgroup of [`few_rows`].
pub(super) const WIDE: usize = 64;

/// `out = x · Wᵀ` for at most `most` rows: each workgroup decodes one row of the weight, once.
#[cube(launch)]
pub(super) fn few_rows(
    x: &[f32],
    words: &[u32],
    out: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
    #[comptime] layout: DeviceLayout,
    #[comptime] most: usize,
) {
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_X as usize + CUBE_POS_Y as usize * CUBE_COUNT_X as usize;
    let mut sums = Array::<f32>::new(most);
    #[unroll]
    for i in 0..most {
        sums[i] = 0.0;
    }
    for step in 0..k.div_ceil(comptime!(WIDE * RUN)) {
        let col = (step * WIDE + unit) * RUN;
        let at = At {
            row,
            col,
            rows: n,
            cols: k,
        };
        let values = run(words, at, layout);
        #[unroll]
        for i in 0..most {
            #[unroll]
            for j in 0..RUN {
                if i < m && col + j < k {
                    sums[i] += values[j] * x[i * k + col + j];
                }
            }
        }
    }
    let mut partial = Shared::<[f32]>::new_slice(comptime!(WIDE * most));
    #[unroll]
    for i in 0..most {
        partial[i * WIDE + unit] = sums[i];
    }
    sync_cube();
    #[unroll]
    for halving in 1..comptime!(WIDE.ilog2() as usize + 1) {
        let half = comptime!(WIDE >> halving);
        if unit < half {
            #[unroll]
            for i in 0..most {
                partial[i * WIDE + unit] += partial[i * WIDE + unit + half];
            }
        }
        sync_cube();
    }
    if unit < m && row < n {
        out[unit * n + row] = partial[unit * WIDE];
    }
}
