//! Results that threads write piece by piece.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers that one task handles.
const PIECE: usize = 1 << 14;

/// `rows` × `width` numbers for each of `N` results. `write` gets the first row of a piece and
/// the piece of each result, which holds zeros.
///
/// Zeros come with the task: fresh memory is expensive to touch, and one thread would do it alone.
pub(crate) fn in_pieces<const N: usize>(
    [rows, width]: [usize; 2],
    write: impl Fn(usize, [&mut [f32]; N]) + Sync,
) -> [Vec<f32>; N] {
    in_pieces_of((PIECE / width.max(1)).max(1), [rows, width], write)
}

/// As [`in_pieces`], for tasks that like to have `most` rows.
pub(crate) fn in_pieces_of<const N: usize>(
    most: usize,
    [rows, width]: [usize; 2],
    write: impl Fn(usize, [&mut [f32]; N]) + Sync,
) -> [Vec<f32>; N] {
    let mut results = [(); N].map(|()| Vec::with_capacity(rows * width));
    let starts = results.each_mut().map(|result| Start(result.as_mut_ptr()));
    let count = rows.div_ceil(most);
    let make = |piece: usize| {
        let first = piece * most;
        let length = most.min(rows - first) * width;
        let pieces = starts.map(|start| {
            // SAFETY: the results have room for all rows, and no other task has these.
            let piece = unsafe {
                let start: *mut MaybeUninit<f32> = start.0.add(first * width).cast();
                std::slice::from_raw_parts_mut(start, length)
            };
            piece.fill(MaybeUninit::new(0.0));
            // SAFETY: it has just been filled.
            unsafe { piece.assume_init_mut() }
        });
        write(first, pieces);
    };
    match count {
        // A single piece wakes nobody.
        1 => make(0),
        _ => (0..count).into_par_iter().for_each(make),
    }
    for result in &mut results {
        // SAFETY: the tasks have filled all rows.
        unsafe { result.set_len(rows * width) };
    }
    results
}

/// Where a result begins.
#[derive(Clone, Copy)]
struct Start(*mut f32);

// SAFETY: tasks only reach numbers through it that no other task reaches.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_written_once() {
        for [rows, width] in [[0, 4], [3, 0], [1, 40_000], [9000, 7]] {
            let [a, b] = in_pieces([rows, width], |first, [a, b]| {
                for (i, (a, b)) in a.iter_mut().zip(b).enumerate() {
                    *a += (first * width + i) as f32;
                    *b -= *a;
                }
            });
            let expected: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
            assert_eq!(a, expected);
            assert!(b.iter().zip(&a).all(|(b, a)| *b == -a));
        }
    }
}
