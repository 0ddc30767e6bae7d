//! The search for codes: one codebook after another, many groups of weights at once.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::kernels::gemm::{Mat, matmul};

use crate::books::Books;

/// How often the codes of a group are gone through, at most.
const SWEEPS: usize = 8;
/// Groups that are compared at once.
const GROUPS: usize = 48;
/// Vectors that they are compared with at once: the products stay in a near cache.
const BLOCK: usize = 512;

/// Chooses the codes of rows that share a scale, and the scale.
pub struct Search<'a> {
    books: &'a Books,
    /// `[groups, length + 1]`: what a vector should be, and 1.
    queries: Vec<f32>,
    /// Products of queries and vectors.
    products: Vec<f32>,
    /// The best product of each query, and its vector.
    found: Vec<(f32, u32)>,
    /// Sums of vectors in the place of the weights.
    sums: Vec<f32>,
}

/// Codes of some groups.
struct Choice {
    /// `[groups, codebooks]`
    codes: Vec<u32>,
    /// What the sums should be, without the vectors chosen, `[groups, length]`.
    rest: Vec<f32>,
}

impl<'a> Search<'a> {
    pub fn new(books: &'a Books) -> Self {
        Self {
            books,
            queries: Vec::new(),
            products: vec![0.0; GROUPS * BLOCK],
            found: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Replaces the codes and the scale of `out_group_size` rows of `k` weights by better ones, and
    /// returns the squared error that is left.
    pub fn rows(
        &mut self,
        rows: &[f32],
        k: usize,
        codes: &mut [u32],
        scale: &mut f32,
        format: FloatFormat,
    ) -> f64 {
        let (length, count) = (self.books.length, self.books.sizes.num_codebooks);
        let mut targets = Vec::with_capacity(GROUPS * length);
        for (batch, codes) in codes.chunks_mut(GROUPS * count).enumerate() {
            targets.clear();
            for group in 0..codes.len() / count {
                let at = batch * GROUPS + group;
                gather(self.books, rows, k, at, *scale, &mut targets);
            }
            self.groups(&targets, codes);
        }
        self.add_up(k, codes);
        let mut products = [0.0; 2];
        for (weight, sum) in rows.iter().zip(&self.sums) {
            products[0] += f64::from(*weight) * f64::from(*sum);
            products[1] += f64::from(*sum) * f64::from(*sum);
        }
        *scale = best_scale(products, *scale, format);
        let pairs = rows.iter().zip(&self.sums);
        let errors = pairs.map(|(weight, sum)| f64::from(weight - *scale * sum));
        errors.map(|error| error * error).sum()
    }

    /// Finds codes: from those that the groups have, and from those that are found one codebook
    /// after another. The better ones stay.
    fn groups(&mut self, targets: &[f32], codes: &mut [u32]) {
        let (length, count) = (self.books.length, self.books.sizes.num_codebooks);
        let all: Vec<usize> = (0..targets.len() / length).collect();
        let mut kept = Choice {
            codes: codes.to_vec(),
            rest: targets.to_vec(),
        };
        for (rest, codes) in kept.rest.chunks_exact_mut(length).zip(codes.chunks(count)) {
            for (book, &code) in codes.iter().enumerate() {
                for (rest, value) in rest.iter_mut().zip(self.books.vector(book, code)) {
                    *rest -= value;
                }
            }
        }
        self.descend(&mut kept, &all);
        if count > 1 {
            let mut greedy = Choice {
                codes: codes.to_vec(),
                rest: targets.to_vec(),
            };
            for book in 0..count {
                self.choose(&mut greedy, book, &all, false);
            }
            self.descend(&mut greedy, &all);
            for &group in &all {
                if greedy.error(group, length) < kept.error(group, length) {
                    let own = group * count..(group + 1) * count;
                    kept.codes[own.clone()].copy_from_slice(&greedy.codes[own]);
                }
            }
        }
        codes.copy_from_slice(&kept.codes);
    }

    /// Replaces one code at a time by the best one until none changes.
    fn descend(&mut self, choice: &mut Choice, groups: &[usize]) {
        let count = self.books.sizes.num_codebooks;
        let mut active = groups.to_vec();
        // With one codebook the nearest vector is the nearest one, wherever a search begins.
        for _ in 0..if count == 1 { 1 } else { SWEEPS } {
            let before = choice.codes.clone();
            for book in 0..count {
                self.choose(choice, book, &active, true);
            }
            active.retain(|group| {
                let own = group * count..(group + 1) * count;
                before[own.clone()] != choice.codes[own]
            });
            if active.is_empty() {
                break;
            }
        }
    }

    /// Chooses the nearest vectors of a codebook for some groups, in place of those that they have
    /// or, unless `replacing`, besides all others.
    fn choose(&mut self, choice: &mut Choice, book: usize, groups: &[usize], replacing: bool) {
        let (books, length) = (self.books, self.books.length);
        let count = books.sizes.num_codebooks;
        self.queries.clear();
        self.found.clear();
        for &group in groups {
            let code = choice.codes[group * count + book];
            let rest = choice.rest[group * length..][..length].iter();
            if replacing {
                let pairs = rest.zip(books.vector(book, code));
                self.queries.extend(pairs.map(|(rest, own)| rest + own));
            } else {
                self.queries.extend(rest);
            }
            self.queries.push(1.0);
            self.found.push((f32::NEG_INFINITY, code));
        }
        self.compare(book);
        let found = self.found.iter().zip(self.queries.chunks_exact(length + 1));
        for (&group, (&(_, code), query)) in groups.iter().zip(found) {
            choice.codes[group * count + book] = code;
            let rest = &mut choice.rest[group * length..][..length];
            let pairs = query.iter().zip(books.vector(book, code));
            for (rest, (query, own)) in rest.iter_mut().zip(pairs) {
                *rest = query - own;
            }
        }
    }

    /// Finds the nearest vector of each query.
    fn compare(&mut self, book: usize) {
        let (entries, depth) = (self.books.entries, self.books.length + 1);
        let columns = self.books.columns(book);
        let queries = Mat::new(&self.queries, self.found.len(), depth, depth);
        for first in (0..entries).step_by(BLOCK) {
            let count = BLOCK.min(entries - first);
            let columns = Mat::new(&columns[first..], depth, count, entries);
            matmul(&mut self.products, BLOCK, queries, columns, false);
            for (found, products) in self.found.iter_mut().zip(self.products.chunks(BLOCK)) {
                let products = &products[..count];
                let largest = largest(products);
                if largest > found.0 {
                    let at = products.iter().position(|product| *product == largest);
                    *found = (largest, (first + at.unwrap_or_default()) as u32);
                }
            }
        }
    }

    /// Puts the sums of vectors where the weights are in their rows.
    fn add_up(&mut self, k: usize, codes: &[u32]) {
        let sizes = self.books.sizes;
        let ig = sizes.in_group_size;
        self.sums.resize(sizes.out_group_size * k, 0.0);
        for (group, codes) in codes.chunks_exact(sizes.num_codebooks).enumerate() {
            for at in 0..self.books.length {
                self.sums[at / ig * k + group * ig + at % ig] = self.books.sum(codes, at);
            }
        }
    }
}

impl Choice {
    fn error(&self, group: usize, length: usize) -> f32 {
        let rest = &self.rest[group * length..][..length];
        rest.iter().map(|v| v * v).sum()
    }
}

/// Appends a group's weights, of rows that share a scale, divided by it.
pub fn gather(books: &Books, rows: &[f32], k: usize, group: usize, scale: f32, to: &mut Vec<f32>) {
    let ig = books.sizes.in_group_size;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for row in rows.chunks_exact(k) {
        to.extend(
            row[group * ig..][..ig]
                .iter()
                .map(|weight| weight * inverse),
        );
    }
}

/// The largest of some numbers, in steps that a processor takes many of at once.
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = values.chunks_exact(lanes.len());
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |largest, v| larger(largest, *v))
}

/// The scale that fits best by the products of weights and sums, and of sums with themselves, if
/// it is better than that before once rounded.
fn best_scale([product, square]: [f64; 2], before: f32, format: FloatFormat) -> f32 {
    let mut scale = [(product / square) as f32];
    format.round(&mut scale);
    // The error is a parabola around the best scale.
    let distance = |scale: f32| (f64::from(scale) - product / square).abs();
    if scale[0].is_finite() && distance(scale[0]) < distance(before) {
        scale[0]
    } else {
        before
    }
}
