//! Rotation by a block-diagonal matrix: `y = x · blockdiag(R₁, …, R_r)`.

mod one_row;

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};
use crate::pieces::in_pieces_of;

/// Inputs: `x` of `[.., r·b]` and the blocks of `[r, b, b]`, or `[1, b, b]` for a shared block.
#[derive(Debug, Clone, Copy)]
pub struct Rotate;

impl HostOp for Rotate {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        Forward::new(inputs[0].shape, rotate(inputs[0], inputs[1], false))
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![
            wants[0].then(|| rotate(grad, inputs[1], true)),
            wants[1].then(|| blocks_gradient(inputs[0], inputs[1], grad)),
        ]
    }
}

/// `x · blockdiag(R)`, or with `transpose` `x · blockdiag(Rᵀ)`.
///
/// # Panics
/// If the blocks do not tile the rows of `x`.
pub fn rotate(x: HostView, blocks: HostView, transpose: bool) -> Vec<f32> {
    let (rows, width) = x.rows();
    let [stored, size, _] = block_shape(blocks, width);
    if rows == 1 && !transpose {
        return one_row::turn(x.data, blocks.data, [stored, size]);
    }
    let most = rows.div_ceil(rayon::current_num_threads()).clamp(1, 256);
    let [out] = in_pieces_of(most, [rows, width], |first, [out]| {
        let x = &x.data[first * width..][..out.len()];
        let rows = x.len() / width.max(1);
        for block in 0..width / size {
            let at = block * size;
            let r = &blocks.data[(block % stored) * size * size..][..size * size];
            let r = Mat::new(r, size, size, size);
            let r = if transpose { r.t() } else { r };
            matmul(
                &mut out[at..],
                width,
                Mat::new(&x[at..], rows, size, width),
                r,
                false,
            );
        }
    });
    out
}

/// Positions that share a block and are summed up by one thread.
const SHARED: usize = 4;

/// `dR_i = Σ_rows x_iᵀ · dy_i`, summed over the positions that share a block.
fn blocks_gradient(x: HostView, blocks: HostView, grad: HostView) -> Vec<f32> {
    let (rows, width) = x.rows();
    let [stored, size, _] = block_shape(blocks, width);
    let of_positions = |positions: Range<usize>, out: &mut [f32]| {
        for block in positions.clone() {
            let at = block * size;
            let x = Mat::new(&x.data[at..], rows, size, width);
            let grad = Mat::new(&grad.data[at..], rows, size, width);
            matmul(out, size, x.t(), grad, block > positions.start);
        }
    };
    let mut out = vec![0.0; stored * size * size];
    let positions = width / size;
    if stored == positions {
        let blocks = out.par_chunks_mut(size * size).enumerate();
        blocks.for_each(|(index, out)| of_positions(index..index + 1, out));
        return out;
    }
    // Parts are added in order, so that threads change nothing.
    let parts: Vec<Vec<f32>> = (0..positions.div_ceil(SHARED))
        .into_par_iter()
        .map(|part| {
            let mut sum = vec![0.0; size * size];
            let first = part * SHARED;
            of_positions(first..(first + SHARED).min(positions), &mut sum);
            sum
        })
        .collect();
    for part in parts {
        out.iter_mut()
            .zip(part)
            .for_each(|(out, part)| *out += part);
    }
    out
}

fn block_shape(blocks: HostView, width: usize) -> [usize; 3] {
    let &[stored, size, size_2] = blocks.shape else {
        panic!(
            "rotation blocks have shape {:?}, [blocks, size, size] expected",
            blocks.shape
        );
    };
    let covered = if stored == 1 {
        width.is_multiple_of(size)
    } else {
        stored * size == width
    };
    assert!(
        size == size_2 && covered,
        "rotation blocks {:?} do not tile {width} features",
        blocks.shape
    );
    [stored, size, size]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    #[test]
    fn each_block_turns_its_own_features() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let blocks = [0.0, 1.0, -1.0, 0.0, 2.0, 0.0, 0.0, 1.0];
        let y = rotate(
            HostView::new(&[1, 4], &x),
            HostView::new(&[2, 2, 2], &blocks),
            false,
        );
        assert_eq!(y, [-2.0, 1.0, 6.0, 4.0]);
        let t = rotate(
            HostView::new(&[1, 4], &x),
            HostView::new(&[2, 2, 2], &blocks),
            true,
        );
        assert_eq!(t, [2.0, -1.0, 6.0, 4.0]);
    }

    #[test]
    fn one_row_is_turned_as_it_is_among_others() {
        for (count, size) in [(3, 32), (2, 5), (4, 1), (1, 100), (7, 24)] {
            for stored in [count, 1] {
                let (x, blocks) = (random(2 * count * size, 1), random(stored * size * size, 2));
                let shape = [stored, size, size];
                let blocks = HostView::new(&shape, &blocks);
                let width = count * size;
                let both = rotate(HostView::new(&[2, width], &x), blocks, false);
                let one = rotate(HostView::new(&[1, width], &x[..width]), blocks, false);
                for (one, both) in one.iter().zip(both) {
                    assert!((one - both).abs() < 1e-5, "{one} {both}");
                }
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        // Fewer positions than a thread takes, and more.
        for (stored, positions) in [(3, 3), (1, 3), (1, 2 * SHARED + 1)] {
            let width = positions * 4;
            let inputs = [
                (vec![5, width], random(5 * width, 1)),
                (vec![stored, 4, 4], random(stored * 16, 2)),
            ];
            check_gradients(&Rotate, &inputs);
        }
    }
}
