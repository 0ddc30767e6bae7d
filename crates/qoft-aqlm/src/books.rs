//! The codebooks of a layer, arranged for comparing vectors with all of theirs.

use qoft_scheme::kernels::{CodebookShape, FloatFormat};

use crate::layout::AqlmTensors;

/// Codebooks with values that their file can hold.
#[derive(Clone)]
pub struct Books {
    pub sizes: CodebookShape,
    /// The dtype in the file.
    pub format: FloatFormat,
    /// Vectors of a codebook.
    pub entries: usize,
    /// Numbers in a vector.
    pub length: usize,
    /// `[codebooks, entries, length]`
    vectors: Vec<f32>,
    /// `[codebooks, length + 1, entries]`: the vectors, and minus half of their squared lengths.
    columns: Vec<f32>,
}

impl Books {
    pub fn new(parts: &AqlmTensors) -> Self {
        let mut vectors = vec![0.0; parts.codebooks.len()];
        parts.codebooks.read(0, &mut vectors);
        Self::from_vectors(parts.sizes, parts.codebooks.format(), vectors)
    }

    /// From `[codebooks, entries, length]` values.
    pub fn from_vectors(sizes: CodebookShape, format: FloatFormat, vectors: Vec<f32>) -> Self {
        let (entries, length) = (
            1 << sizes.nbits_per_codebook,
            sizes.out_group_size * sizes.in_group_size,
        );
        let mut books = Self {
            sizes,
            format,
            entries,
            length,
            columns: vec![0.0; sizes.num_codebooks * (length + 1) * entries],
            vectors,
        };
        (0..sizes.num_codebooks).for_each(|book| books.arrange(book));
        books
    }

    /// A vector of a codebook.
    pub fn vector(&self, book: usize, code: u32) -> &[f32] {
        &self.vectors[(book * self.entries + code as usize) * self.length..][..self.length]
    }

    /// All vectors of a codebook, `[entries, length]`.
    pub fn book(&self, book: usize) -> &[f32] {
        let size = self.entries * self.length;
        &self.vectors[book * size..][..size]
    }

    /// Gives a codebook other vectors, `[entries, length]`.
    pub fn replace(&mut self, book: usize, vectors: &[f32]) {
        let size = self.entries * self.length;
        self.vectors[book * size..][..size].copy_from_slice(vectors);
        self.arrange(book);
    }

    /// `[codebooks, entries, length]`.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// `[length + 1, entries]`: the product of `(x, 1)` with a column is the larger, the nearer the
    /// column's vector is to `x`.
    pub fn columns(&self, book: usize) -> &[f32] {
        let size = (self.length + 1) * self.entries;
        &self.columns[book * size..][..size]
    }

    /// The sum of the vectors that codes of all codebooks stand for, added up as readers do.
    pub fn sum(&self, codes: &[u32], at: usize) -> f32 {
        let vectors = codes.iter().enumerate();
        vectors
            .map(|(book, &code)| self.vector(book, code)[at])
            .sum()
    }

    fn arrange(&mut self, book: usize) {
        let (entries, length) = (self.entries, self.length);
        let vectors = &self.vectors[book * entries * length..][..entries * length];
        let size = (length + 1) * entries;
        let columns = &mut self.columns[book * size..][..size];
        for (code, vector) in vectors.chunks_exact(length).enumerate() {
            for (at, value) in vector.iter().enumerate() {
                columns[at * entries + code] = *value;
            }
            columns[length * entries + code] = vector.iter().map(|v| v * v).sum::<f32>() / -2.0;
        }
    }
}
