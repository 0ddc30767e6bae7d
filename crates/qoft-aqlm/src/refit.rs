//! Codebooks that fit a weight, with codes and scales as they are: least squares.
//!
//! What is made smaller is `Σ scale² ‖w / scale − sum of vectors‖²` over all groups of weights. With
//! the other codebooks fixed, a vector is best as the mean of what the others leave to it, over the
//! groups that use it, which count by the squares of their scales. One codebook is solved by that;
//! several take turns.

use qoft_scheme::kernels::Matrix;
use rayon::prelude::*;

use crate::search::gather;
use crate::sums::Sums;

/// How often several codebooks take turns.
const TURNS: usize = 4;

impl Sums {
    /// Replaces the vectors of the codebooks by better ones. Vectors that no code stands for stay.
    pub fn refit(&mut self, weight: &Matrix) {
        let count = self.books.sizes.num_codebooks;
        let mut rest = self.rest(weight);
        for _ in 0..if count == 1 { 1 } else { TURNS } {
            for book in 0..count {
                self.refit_book(book, &mut rest);
            }
        }
    }

    /// The weights divided by their scales, without the sums of vectors, `[groups, length]`.
    fn rest(&self, weight: &Matrix) -> Vec<f32> {
        let (books, k, each) = (&self.books, weight.shape[1], self.codes_by_scale());
        let (og, count) = (books.sizes.out_group_size, books.sizes.num_codebooks);
        let mut rest = vec![0.0; weight.values.len()];
        rest.par_chunks_exact_mut(og * k)
            .zip(weight.values.par_chunks_exact(og * k))
            .zip(self.codes.par_chunks_exact(each))
            .zip(&self.scales)
            .for_each(|(((rest, rows), codes), &scale)| {
                let mut target = Vec::with_capacity(books.length);
                let groups = rest.chunks_exact_mut(books.length);
                for (group, (rest, codes)) in groups.zip(codes.chunks_exact(count)).enumerate() {
                    target.clear();
                    gather(books, rows, k, group, scale, &mut target);
                    for (at, (rest, target)) in rest.iter_mut().zip(&target).enumerate() {
                        *rest = target - books.sum(codes, at);
                    }
                }
            });
        rest
    }

    /// Moves each vector of a codebook by the mean of what is missing, rounded to what the file can
    /// hold, and takes that out of what is missing.
    fn refit_book(&mut self, book: usize, rest: &mut [f32]) {
        let (length, count) = (self.books.length, self.books.sizes.num_codebooks);
        let in_groups = self.codes_by_scale() / count;
        let weight = |group: usize| f64::from(self.scales[group / in_groups]).powi(2);
        let (starts, users) = users(&self.codes[book..], count, self.books.entries);
        let mut vectors = self.books.book(book).to_vec();
        let moves = vectors.par_chunks_exact_mut(length).enumerate();
        moves.for_each(|(code, vector)| {
            let users = &users[starts[code]..starts[code + 1]];
            let all: f64 = users.iter().map(|&group| weight(group)).sum();
            for (at, value) in vector.iter_mut().enumerate() {
                let missing = users
                    .iter()
                    .map(|&group| weight(group) * f64::from(rest[group * length + at]));
                let mut better = [(f64::from(*value) + missing.sum::<f64>() / all) as f32];
                self.books.format.round(&mut better);
                if better[0].is_finite() {
                    *value = better[0];
                }
            }
        });
        rest.par_chunks_exact_mut(length)
            .zip(self.codes.par_chunks_exact(count))
            .for_each(|(rest, codes)| {
                let before = self.books.vector(book, codes[book]);
                let after = &vectors[codes[book] as usize * length..][..length];
                for (rest, (before, after)) in rest.iter_mut().zip(before.iter().zip(after)) {
                    *rest -= after - before;
                }
            });
        self.books.replace(book, &vectors);
    }
}

/// The groups that use each vector: where those of a vector start in the list of all, and the list.
/// Of the codes every `count`th is one of this codebook.
fn users(codes: &[u32], count: usize, entries: usize) -> (Vec<usize>, Vec<usize>) {
    let codes = || codes.iter().step_by(count).map(|&code| code as usize);
    let mut starts = vec![0; entries + 1];
    for code in codes() {
        starts[code + 1] += 1;
    }
    for code in 0..entries {
        starts[code + 1] += starts[code];
    }
    let (mut next, mut users) = (starts.clone(), vec![0; starts[entries]]);
    for (group, code) in codes().enumerate() {
        users[next[code]] = group;
        next[code] += 1;
    }
    (starts, users)
}

#[cfg(test)]
mod tests;
