//! Decoding a piece of a row.

use super::{CodebookShape, CodebookWeight};
use crate::decode;
use crate::floats::Floats;
use crate::wide;

/// Weights of larger codebooks that are converted at once.
const CHUNK: usize = 512;

/// What the vectors of a row of the matrix have in common.
#[derive(Clone, Copy)]
pub struct Row {
    /// The first of the row's groups.
    pub first: usize,
    /// The row within these groups.
    pub inner: usize,
    pub scale: f32,
}

impl CodebookWeight {
    /// Where the vector of codebook `c` for group `b` of a row begins, counted in vectors.
    #[inline(always)]
    fn vector(&self, row: Row, b: usize, c: usize) -> usize {
        let sizes = &self.sizes;
        let at = (row.first + b) * sizes.num_codebooks + c;
        // More than four bytes of a code never count.
        let code = match sizes.code_bytes {
            1 => u32::from(self.codes[at]),
            2 => u32::from(u16::from_le_bytes(self.codes.as_chunks::<2>().0[at])),
            4 => u32::from_le_bytes(self.codes.as_chunks::<4>().0[at]),
            _ => u64::from_le_bytes(self.codes.as_chunks::<8>().0[at]) as u32,
        };
        let code = code as usize & ((1 << sizes.nbits_per_codebook) - 1);
        ((c << sizes.nbits_per_codebook) + code) * sizes.out_group_size + row.inner
    }

    /// Decodes some columns of a row with small codebooks.
    pub(super) fn decoded(&self, books: &[f32], row: Row, start: usize, out: &mut [f32]) {
        match (self.sizes.in_group_size, self.sizes.code_bytes) {
            (4, 1) => self.sums::<4, 1>(books, row, start, out),
            (4, _) => self.sums::<4, 2>(books, row, start, out),
            (8, 1) => self.sums::<8, 1>(books, row, start, out),
            (8, _) => self.sums::<8, 2>(books, row, start, out),
            (16, 1) => self.sums::<16, 1>(books, row, start, out),
            (16, _) => self.sums::<16, 2>(books, row, start, out),
            (_, 1) => self.sums::<32, 1>(books, row, start, out),
            _ => self.sums::<32, 2>(books, row, start, out),
        }
    }

    /// The same for vectors of `IG` values and codes of `W` bytes.
    fn sums<const IG: usize, const W: usize>(
        &self,
        books: &[f32],
        row: Row,
        start: usize,
        out: &mut [f32],
    ) {
        let CodebookShape {
            num_codebooks,
            nbits_per_codebook: bits,
            out_group_size,
            ..
        } = self.sizes;
        let books = &books.as_chunks::<IG>().0[row.inner..];
        let mask = (1 << bits) - 1;
        let sum = |codes: &[[u8; W]]| {
            let mut sum = [0.0; IG];
            for (c, code) in codes.iter().enumerate() {
                let mut word = [0; 2];
                word[..W].copy_from_slice(code);
                let code = usize::from(u16::from_le_bytes(word)) & mask;
                let vector = &books[((c << bits) + code) * out_group_size];
                for (sum, value) in sum.iter_mut().zip(vector) {
                    *sum += value;
                }
            }
            sum.map(|sum| sum * row.scale)
        };
        let codes = &self.codes.as_chunks::<W>().0[(row.first + start / IG) * num_codebooks..];
        let mut sums = codes.chunks_exact(num_codebooks).map(sum);
        let (head, out) = out.split_at_mut(head(start, IG, out.len()));
        let (whole, tail) = out.as_chunks_mut::<IG>();
        if !head.is_empty() {
            let sum = sums.next().expect("a group for each column");
            head.copy_from_slice(&sum[start % IG..][..head.len()]);
        }
        for (out, sum) in whole.iter_mut().zip(sums.by_ref()) {
            *out = sum;
        }
        if !tail.is_empty() {
            let sum = sums.next().expect("a group for each column");
            tail.copy_from_slice(&sum[..tail.len()]);
        }
    }

    /// Decodes some columns of a row, for vectors of any length and dtype.
    pub(super) fn stored(&self, books: &Floats, row: Row, start: usize, out: &mut [f32]) {
        let format = books.format();
        let (mut bytes, mut values) = ([0; 4 * CHUNK], [0.0; CHUNK]);
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = start + chunk * CHUNK;
            let (bytes, values) = (&mut bytes[..out.len() * format.size()], &mut values);
            self.gather(books, row, 0, start, bytes);
            format.decode(bytes, out);
            for c in 1..self.sizes.num_codebooks {
                let values = &mut values[..out.len()];
                self.gather(books, row, c, start, bytes);
                format.decode(bytes, values);
                add(out, values);
            }
            decode::scale(out, row.scale);
        }
    }

    /// Puts the vectors of one codebook next to each other, beginning with column `start`.
    fn gather(&self, books: &Floats, row: Row, c: usize, start: usize, out: &mut [u8]) {
        let (size, ig) = (books.format().size(), self.sizes.in_group_size);
        let length = ig * size;
        let mut b = start / ig;
        let (head, out) = out.split_at_mut(head(start * size, length, out.len()));
        if !head.is_empty() {
            let vector = self.vector(row, b, c) * length + start % ig * size;
            head.copy_from_slice(&books.bytes()[vector..][..head.len()]);
            b += 1;
        }
        match length {
            4 => self.gather_whole::<4>(books, row, c, b, out),
            8 => self.gather_whole::<8>(books, row, c, b, out),
            16 => self.gather_whole::<16>(books, row, c, b, out),
            32 => self.gather_whole::<32>(books, row, c, b, out),
            64 => self.gather_whole::<64>(books, row, c, b, out),
            _ => {
                for (i, out) in out.chunks_mut(length).enumerate() {
                    let vector = self.vector(row, b + i, c) * length;
                    out.copy_from_slice(&books.bytes()[vector..][..out.len()]);
                }
            }
        }
    }

    /// Vectors of `L` bytes from group `b` on; the last one may be cut.
    fn gather_whole<const L: usize>(
        &self,
        books: &Floats,
        row: Row,
        c: usize,
        b: usize,
        out: &mut [u8],
    ) {
        let books = books.bytes().as_chunks::<L>().0;
        let (whole, tail) = out.as_chunks_mut::<L>();
        for (i, out) in whole.iter_mut().enumerate() {
            *out = books[self.vector(row, b + i, c)];
        }
        if !tail.is_empty() {
            let vector = self.vector(row, b + whole.len(), c);
            tail.copy_from_slice(&books[vector][..tail.len()]);
        }
    }
}

/// How many of `length` elements from `start` on belong to a vector that began before.
fn head(start: usize, vector: usize, length: usize) -> usize {
    (start.next_multiple_of(vector) - start).min(length)
}

/// `out[i] += values[i]`.
fn add(out: &mut [f32], values: &[f32]) {
    wide!({
        for (out, value) in out.iter_mut().zip(values) {
            *out += value;
        }
    });
}
