//! Products of whole rows of 4-bit codes with one row of activations.

use super::look_up::{LookUp, STEP, TableOp, dispatch};
use super::small::SmallCodes;
use crate::nibble_order::NibbleOrder;
use crate::simd::prefetch;

/// Weights of a block: their codes are eight words.
pub(crate) const BLOCK: usize = 64;
/// Vectors of a table's length in a block.
const STEPS: usize = BLOCK / STEP;

/// Bytes that are asked for ahead of those that are read.
const AHEAD: usize = 1024;

/// Activations of a block, in the order in which [`NibbleRows`] comes to its weights.
pub(crate) type Spread = [[f32; STEP]; STEPS];

/// Where step `step` takes the code of lane `lane` from: the word, and the code in it.
const fn place(step: usize, lane: usize) -> [usize; 2] {
    [lane % 8, 2 * step + lane / 8]
}

/// The activations of whole blocks in the order of the product.
pub(crate) fn spread(x: &[f32]) -> Vec<Spread> {
    let blocks = x.as_chunks::<BLOCK>().0.iter();
    let spread = blocks.map(|x| {
        let (words, mut out) = (x.as_chunks::<8>().0, [[0.0; STEP]; STEPS]);
        for (step, out) in out.iter_mut().enumerate() {
            for (lane, out) in out.iter_mut().enumerate() {
                let [word, code] = place(step, lane);
                *out = words[word][code];
            }
        }
        out
    });
    spread.collect()
}

/// Rows of 4-bit codes in groups of whole blocks.
///
/// A block is eight words with eight codes each. One shift brings codes of all words to the place
/// of an index at once, so no code is moved to a lane of its own; the activations are in that order
/// instead, once for all rows.
pub(crate) struct NibbleRows<'a> {
    /// How the codes become weights.
    pub codes: SmallCodes<'a>,
    /// The codes of the rows.
    pub blocks: &'a [[u8; BLOCK / 2]],
    /// The activations of a row.
    pub x: &'a [Spread],
    /// Blocks of a group; the last group of a row may be cut off.
    pub size: usize,
    /// The scale of each group.
    pub scales: &'a [f32],
    /// The zero point of each group.
    pub zeros: &'a [f32],
}

impl NibbleRows<'_> {
    /// The product of each row with the activations.
    pub fn dot(&self, out: &mut [f32]) {
        dispatch(Dot(self, out));
    }
}

struct Dot<'a>(&'a NibbleRows<'a>, &'a mut [f32]);

impl TableOp for Dot<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: LookUp<V>, const V: usize>(self, simd: S) {
        match self.0.codes.order {
            NibbleOrder::LowFirst => self.rows::<S, V, 0>(simd),
            NibbleOrder::HighFirst => self.rows::<S, V, 1>(simd),
        }
    }
}

impl Dot<'_> {
    /// The product of each row. `FLIP` is 1 where the first code of a byte is in its high half, else 0.
    #[inline(always)]
    fn rows<S: LookUp<V>, const V: usize, const FLIP: usize>(self, simd: S) {
        let Self(rows, out) = self;
        let per_row = rows.x.len().div_ceil(rows.size);
        let blocks = rows.blocks.chunks_exact(rows.x.len());
        let parts = rows.scales.chunks_exact(per_row);
        let parts = parts.zip(rows.zeros.chunks_exact(per_row));
        for ((out, blocks), (scales, zeros)) in out.iter_mut().zip(blocks).zip(parts) {
            let mut sums = [simd.splat_f32s(0.0); STEPS];
            let groups = blocks.chunks(rows.size).zip(rows.x.chunks(rows.size));
            for ((blocks, x), (&scale, &zero)) in groups.zip(scales.iter().zip(zeros)) {
                let table = rows.codes.table(simd, scale, zero);
                for (block, x) in blocks.iter().zip(x) {
                    add::<S, V, FLIP>(simd, &mut sums, table, block, x);
                }
            }
            let [a, b, c, d] = sums;
            *out = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
    }
}

/// Where the codes of each step begin in their words.
const fn shifts(flip: usize) -> [[u32; STEP]; STEPS] {
    let mut shifts = [[0; STEP]; STEPS];
    let mut i = 0;
    while i < BLOCK {
        let [_, code] = place(i / STEP, i % STEP);
        shifts[i / STEP][i % STEP] = 4 * (code ^ flip) as u32;
        i += 1;
    }
    shifts
}

/// Adds the products of a block to sums that run beside each other.
#[inline(always)]
fn add<S: LookUp<V>, const V: usize, const FLIP: usize>(
    simd: S,
    sums: &mut [S::f32s; STEPS],
    table: [S::f32s; V],
    block: &[u8; BLOCK / 2],
    x: &Spread,
) {
    prefetch(block, AHEAD);
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for (step, sum) in sums.iter_mut().enumerate() {
        let (x, _) = S::as_simd_f32s(&x[step]);
        let (shifts, _) = S::as_simd_u32s(&const { shifts(FLIP) }[step]);
        for v in 0..V {
            let codes = simd.wrapping_dyn_shr_u32s(simd.eight(&words, v), shifts[v]);
            *sum = simd.mul_add_f32s(simd.look_up(table, codes), x[v], *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::look_up::with_each;
    use super::*;
    use crate::codes::Codes;
    use crate::decode::ZeroStep;
    use crate::floats::FloatFormat;

    #[derive(Clone)]
    struct Each<'a>(&'a NibbleRows<'a>);

    impl TableOp for Each<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: LookUp<V>, const V: usize>(self, simd: S) -> Vec<f32> {
            let mut out = vec![f32::NAN; 3];
            Dot(self.0, &mut out).run(simd);
            out
        }
    }

    #[test]
    fn products_are_those_of_the_weights() {
        let k = 5 * BLOCK;
        let stream = Codes::pack(4, (0..3 * k as u32).map(|i| (i * i * 89 + i) as u8));
        let halves = stream.bytes.iter().map(|byte| byte.rotate_left(4));
        let swapped = Codes::high_first(halves.collect::<Vec<u8>>());
        let numbers = std::array::from_fn(|code| code as f32);
        let x: Vec<f32> = (0..k).map(|i| (i * 29 % 31) as f32 - 15.0).collect();
        for (size, codes) in [1, 2, 5, 7]
            .iter()
            .flat_map(|&size| [(size, &stream), (size, &swapped)])
        {
            let per_row = 5usize.div_ceil(size);
            let part = |g: usize| (g * 5 % 7) as f32;
            let zeros: Vec<f32> = (0..3 * per_row).map(part).collect();
            let scales: Vec<f32> = zeros.iter().map(|zero| zero - 2.0).collect();
            let rows = NibbleRows {
                codes: SmallCodes {
                    bytes: &codes.bytes,
                    bits: 4,
                    order: codes.order,
                    numbers: &numbers,
                    zero_step: ZeroStep::Subtract,
                    factor: 2.0,
                    rounding: FloatFormat::F32,
                },
                blocks: codes.bytes.as_chunks().0,
                x: &spread(&x),
                size,
                scales: &scales,
                zeros: &zeros,
            };
            // All sums are integers below 2²⁴.
            let expected: Vec<f32> = (0..3)
                .map(|n| {
                    let product = |i: usize| {
                        let g = n * per_row + i / BLOCK / size;
                        let code = f32::from(stream.get(n * k + i));
                        (code - zeros[g]) * scales[g] * 2.0 * x[i]
                    };
                    (0..k).map(product).sum()
                })
                .collect();
            for found in with_each(&Each(&rows)) {
                assert_eq!(
                    found, expected,
                    "groups of {size} blocks, {:?}",
                    codes.order
                );
            }
        }
    }
}
