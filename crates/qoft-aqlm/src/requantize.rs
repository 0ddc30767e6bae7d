//! Choosing vectors of a layer's codebooks anew.
//!
//! Codebooks are learned with calibration data, and are kept. They were made for the original
//! weights, so changed ones fit less well.

use qoft_core::kernels::{CodebookShape, FloatFormat, Matrix, transpose};
use qoft_core::{LayerSource, NewTensor, QuantBackend, Result};
use rayon::prelude::*;

use crate::layout::{Order, Parts};

/// How often the codes of a group are gone through, at most.
const SWEEPS: usize = 8;
/// Vectors that are compared at once.
const BLOCK: usize = 512;

/// The layer again: codes that bring the sums of vectors near to the weights, and scales that fit
/// these sums. A search of codes one by one does not apply, since a code covers several weights.
pub fn requantize(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
) -> Result<Vec<NewTensor>> {
    let parts = Parts::read(backend, layer)?;
    let ([n, k], sizes) = (parts.shape, parts.sizes);
    layer.check_weight(backend, weight, parts.shape)?;
    if parts.permuted && parts.order == Order::Either {
        let reason = "its codes are permuted, which only other layers of the checkpoint tell; it \
                      cannot be written alone. Merge into dense weights instead";
        return Err(layer.error(backend, reason));
    }
    let books = Books::new(&parts);
    let (og, ig, count) = (
        sizes.out_group_size,
        sizes.in_group_size,
        sizes.num_codebooks,
    );
    let in_groups = k / ig;
    let mut scales = vec![0.0; n / og];
    parts.scales.read(0, &mut scales);
    let code_bytes = sizes.code_bytes;
    let mut codes = parts.codes.to_vec();
    codes
        .par_chunks_exact_mut(in_groups * count * code_bytes)
        .zip(weight.values.par_chunks_exact(og * k))
        .zip(&mut scales)
        .for_each_init(
            || Search::new(&books),
            |search, ((codes, rows), scale)| {
                let groups = codes.chunks_exact_mut(count * code_bytes);
                for (group, codes) in groups.enumerate() {
                    search.gather(rows, k, group, *scale);
                    search.read(codes, code_bytes);
                    search.run();
                    search.write(codes, code_bytes);
                    search.count_in(*scale);
                }
                *scale = search.scale(*scale, parts.scales.format());
            },
        );
    if parts.permuted {
        codes = transpose(&codes, code_bytes * count, [n / og, in_groups]);
    }
    Ok(vec![
        layer.rewritten("codes", codes)?,
        layer.copy("codebooks")?,
        layer.rewritten("scales", parts.scales.format().to_bytes(&scales))?,
    ])
}

/// The codebooks, arranged for comparing a vector with all others.
struct Books {
    sizes: CodebookShape,
    /// Entries of a codebook.
    entries: usize,
    /// Numbers in a vector.
    length: usize,
    /// `[codebooks, length, entries]`
    values: Vec<f32>,
    /// Half of the squared length of each vector, `[codebooks, entries]`.
    halves: Vec<f32>,
}

impl Books {
    fn new(parts: &Parts) -> Self {
        let sizes = parts.sizes;
        let (entries, count) = (1 << sizes.nbits_per_codebook, sizes.num_codebooks);
        let length = sizes.out_group_size * sizes.in_group_size;
        let mut stored = vec![0.0; count * entries * length];
        parts.codebooks.read(0, &mut stored);
        let square = |vector: &[f32]| vector.iter().map(|v| v * v).sum::<f32>() / 2.0;
        let halves = stored.chunks_exact(length).map(square).collect();
        let mut values = Vec::with_capacity(stored.len());
        for book in stored.chunks_exact(entries * length) {
            for at in 0..length {
                values.extend(book.iter().skip(at).step_by(length));
            }
        }
        Self {
            sizes,
            entries,
            length,
            values,
            halves,
        }
    }

    /// Number `at` of a vector.
    fn value(&self, book: usize, code: usize, at: usize) -> f32 {
        self.values[(book * self.length + at) * self.entries + code]
    }
}

/// The search for the codes of one group after another.
struct Search<'a> {
    books: &'a Books,
    /// What the sum of the vectors should be.
    target: Vec<f32>,
    /// The target without the chosen vectors.
    rest: Vec<f32>,
    codes: Vec<usize>,
    /// Half of the squared distance to each vector of a block, up to a constant.
    distances: Vec<f32>,
    /// Products of weights and sums, and of sums with themselves, of all groups with a scale.
    products: [f64; 2],
}

impl<'a> Search<'a> {
    fn new(books: &'a Books) -> Self {
        Self {
            books,
            target: vec![0.0; books.length],
            rest: vec![0.0; books.length],
            codes: vec![0; books.sizes.num_codebooks],
            distances: vec![0.0; BLOCK],
            products: [0.0; 2],
        }
    }

    /// Takes a group's weights out of the rows that share a scale.
    fn gather(&mut self, rows: &[f32], k: usize, group: usize, scale: f32) {
        let ig = self.books.sizes.in_group_size;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for (row, target) in rows.chunks_exact(k).zip(self.target.chunks_exact_mut(ig)) {
            for (target, weight) in target.iter_mut().zip(&row[group * ig..]) {
                *target = weight * inverse;
            }
        }
    }

    /// The codes in the file; their upper bits do not count.
    fn read(&mut self, bytes: &[u8], code_bytes: usize) {
        for (code, bytes) in self.codes.iter_mut().zip(bytes.chunks_exact(code_bytes)) {
            let stored = bytes
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | usize::from(*byte));
            *code = stored & (self.books.entries - 1);
        }
    }

    /// Codes in the upper half are stored as negative numbers.
    fn write(&self, bytes: &mut [u8], code_bytes: usize) {
        let entries = self.books.entries;
        for (&code, bytes) in self.codes.iter().zip(bytes.chunks_exact_mut(code_bytes)) {
            let negative = code >= entries / 2;
            let stored = code as i64 - if negative { entries as i64 } else { 0 };
            bytes.copy_from_slice(&stored.to_le_bytes()[..code_bytes]);
        }
    }

    /// Finds codes: from those that the group has, and from those that are found one codebook
    /// after another. The better ones stay.
    fn run(&mut self) {
        self.rest.copy_from_slice(&self.target);
        for book in 0..self.codes.len() {
            self.take(book, -1.0);
        }
        let first = self.descend();
        if self.codes.len() == 1 {
            // The nearest vector is the nearest one, wherever a search begins.
            return;
        }
        let kept = self.codes.clone();
        self.rest.copy_from_slice(&self.target);
        for book in 0..self.codes.len() {
            self.codes[book] = self.nearest(book);
            self.take(book, -1.0);
        }
        if self.descend() >= first {
            self.codes = kept;
        }
    }

    /// Adds the chosen vector of a codebook to the rest, or takes it away.
    fn take(&mut self, book: usize, sign: f32) {
        let code = self.codes[book];
        for (at, rest) in self.rest.iter_mut().enumerate() {
            *rest += sign * self.books.value(book, code, at);
        }
    }

    /// Replaces one code at a time by the best one until none changes, and returns the error.
    fn descend(&mut self) -> f32 {
        for _ in 0..SWEEPS {
            let mut changed = false;
            for book in 0..self.codes.len() {
                self.take(book, 1.0);
                let code = self.nearest(book);
                changed |= code != self.codes[book];
                self.codes[book] = code;
                self.take(book, -1.0);
            }
            if !changed {
                break;
            }
        }
        self.rest.iter().map(|v| v * v).sum()
    }

    /// The vector of a codebook that is nearest to the rest.
    fn nearest(&mut self, book: usize) -> usize {
        let Books {
            entries,
            length,
            values,
            halves,
            ..
        } = self.books;
        let mut best = (f32::INFINITY, self.codes[book]);
        for first in (0..*entries).step_by(BLOCK) {
            let count = BLOCK.min(entries - first);
            let distances = &mut self.distances[..count];
            distances.copy_from_slice(&halves[book * entries + first..][..count]);
            for (at, rest) in self.rest.iter().enumerate() {
                let values = &values[(book * length + at) * entries + first..][..count];
                for (distance, value) in distances.iter_mut().zip(values) {
                    *distance -= rest * value;
                }
            }
            let least = distances
                .iter()
                .fold(f32::INFINITY, |least, d| least.min(*d));
            if least < best.0 {
                let at = distances.iter().position(|d| *d == least);
                best = (least, first + at.unwrap_or_default());
            }
        }
        best.1
    }

    /// Takes the group's weights and the sum of its vectors into account for the scale.
    fn count_in(&mut self, scale: f32) {
        for at in 0..self.books.length {
            let codes = self.codes.iter().enumerate();
            let vectors = codes.map(|(book, &code)| self.books.value(book, code, at));
            let sum = f64::from(vectors.sum::<f32>());
            self.products[0] += f64::from(self.target[at] * scale) * sum;
            self.products[1] += sum * sum;
        }
    }

    /// The scale that fits best to all groups since the last call, if it is better once rounded.
    fn scale(&mut self, before: f32, format: FloatFormat) -> f32 {
        let [product, square] = std::mem::take(&mut self.products);
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
}
