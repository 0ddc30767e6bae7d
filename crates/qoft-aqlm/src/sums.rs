//! A layer as sums of vectors: codebooks, codes and scales that are being chosen.

use qoft_scheme::kernels::{FloatFormat, Matrix};
use rayon::prelude::*;

use crate::books::Books;
use crate::layout::AqlmTensors;
use crate::search::Search;

/// What a layer's tensors stand for. All numbers are such as their file can hold.
#[derive(Clone)]
pub struct Sums {
    pub books: Books,
    /// `[out_features / og, in_features / ig, codebooks]`
    pub codes: Vec<u32>,
    /// `[out_features / og]`
    pub scales: Vec<f32>,
    /// The dtype of the scales in the file.
    pub scale_format: FloatFormat,
}

impl Sums {
    pub fn new(parts: &AqlmTensors) -> Self {
        let mut scales = vec![0.0; parts.scales.len()];
        parts.scales.read(0, &mut scales);
        let books = Books::new(parts);
        // The upper bits of a code do not count.
        let code = |bytes: &[u8]| {
            let all = bytes.iter().rev();
            let stored = all.fold(0, |all, byte| all << 8 | u64::from(*byte));
            (stored % books.entries as u64) as u32
        };
        let codes = parts.codes.chunks_exact(parts.sizes.code_bytes);
        Self {
            codes: codes.map(code).collect(),
            scales,
            scale_format: parts.scales.format(),
            books,
        }
    }

    /// The codes as they are stored: those in the upper half as negative numbers.
    pub fn code_bytes(&self) -> Vec<u8> {
        let (entries, size) = (self.books.entries as i64, self.books.sizes.code_bytes);
        let mut bytes = Vec::with_capacity(self.codes.len() * size);
        for &code in &self.codes {
            let code = i64::from(code);
            let stored = if code >= entries / 2 {
                code - entries
            } else {
                code
            };
            bytes.extend(&stored.to_le_bytes()[..size]);
        }
        bytes
    }

    /// The scales as they are stored.
    pub fn scale_bytes(&self) -> Vec<u8> {
        self.scale_format.to_bytes(&self.scales)
    }

    /// The codebooks as they are stored.
    pub fn book_bytes(&self) -> Vec<u8> {
        self.books.format.to_bytes(self.books.vectors())
    }

    /// Codes that share a scale.
    pub fn codes_by_scale(&self) -> usize {
        self.codes.len() / self.scales.len()
    }

    /// Chooses codes that bring the sums near to a weight, and then scales that fit these sums.
    /// Returns the squared error that is left.
    pub fn search(&mut self, weight: &Matrix) -> f64 {
        let (k, og) = (weight.shape[1], self.books.sizes.out_group_size);
        let (books, format, each) = (&self.books, self.scale_format, self.codes_by_scale());
        let errors: Vec<f64> = self
            .codes
            .par_chunks_exact_mut(each)
            .zip(weight.values.par_chunks_exact(og * k))
            .zip(&mut self.scales)
            .map_init(
                || Search::new(books),
                |search, ((codes, rows), scale)| search.rows(rows, k, codes, scale, format),
            )
            .collect();
        errors.iter().sum()
    }
}
