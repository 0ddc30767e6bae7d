//! Sums of vectors from learned codebooks: additive quantization.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{WeightError, check_length, elements};
use crate::floats::Floats;
use crate::weight::{PackedWeight, WeightInfo};

/// Sizes of a [`CodebookWeight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodebookShape {
    /// Outputs that a vector covers.
    pub out_group_size: usize,
    /// Inputs that a vector covers.
    pub in_group_size: usize,
    /// Vectors that are added up.
    pub num_codebooks: usize,
    /// A codebook has 2 to this power vectors.
    pub nbits_per_codebook: u32,
    /// Bytes that a code is stored in; only its lowest `nbits_per_codebook` bits count.
    pub code_bytes: usize,
}

/// `w[a·og + u, b·ig + v] = scale[a] · Σ_c codebook[c, code[a, b, c], u, v]`, the sum taken in
/// order and in `f32`, then multiplied.
#[derive(Debug, Clone)]
pub struct CodebookWeight {
    shape: [usize; 2],
    sizes: CodebookShape,
    /// `[out_features / og, in_features / ig, num_codebooks]`, little-endian.
    codes: Bytes,
    /// `[num_codebooks, 2^nbits, og, ig]`.
    codebooks: Floats,
    /// `[out_features / og]`.
    scales: Floats,
}

impl CodebookWeight {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the groups do not divide the shape, or a part's length does not fit.
    pub fn new(
        shape: [usize; 2],
        sizes: CodebookShape,
        codes: Bytes,
        codebooks: Floats,
        scales: Floats,
    ) -> Result<Self, WeightError> {
        let (og, ig) = (sizes.out_group_size, sizes.in_group_size);
        elements(shape)?;
        if og == 0 || ig == 0 || !shape[0].is_multiple_of(og) || !shape[1].is_multiple_of(ig) {
            return Err(WeightError::Unsupported("group sizes for this shape"));
        }
        if !matches!(sizes.code_bytes, 1 | 2 | 4 | 8)
            || sizes.nbits_per_codebook as usize > (8 * sizes.code_bytes).min(24)
            || sizes.nbits_per_codebook == 0
        {
            return Err(WeightError::Unsupported("code width"));
        }
        let groups = shape[0] / og * (shape[1] / ig);
        let product = |factors: &[usize]| {
            let product = factors.iter().try_fold(1usize, |p, &f| p.checked_mul(f));
            product.ok_or(WeightError::Shape(shape))
        };
        let expected = product(&[groups, sizes.num_codebooks, sizes.code_bytes])?;
        check_length("codes", expected, codes.len())?;
        let expected = product(&[sizes.num_codebooks, 1 << sizes.nbits_per_codebook, og, ig])?;
        check_length("codebooks", expected, codebooks.len())?;
        check_length("scales", shape[0] / og, scales.len())?;
        Ok(Self {
            shape,
            sizes,
            codes,
            codebooks,
            scales,
        })
    }

    /// The code of codebook `c` for a group, without the bits that do not count.
    fn code(&self, group: usize, c: usize) -> usize {
        let width = self.sizes.code_bytes;
        let at = (group * self.sizes.num_codebooks + c) * width;
        let mut code = [0; 8];
        code[..width].copy_from_slice(&self.codes[at..at + width]);
        let mask = (1u64 << self.sizes.nbits_per_codebook) - 1;
        (u64::from_le_bytes(code) & mask) as usize
    }

    /// Decodes row `row` of the vectors of one group into `out`, `in_group_size` values.
    fn decode_vector(
        &self,
        group: usize,
        row: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let (og, ig) = (self.sizes.out_group_size, self.sizes.in_group_size);
        out.fill(0.0);
        for c in 0..self.sizes.num_codebooks {
            let vector = (c << self.sizes.nbits_per_codebook) + self.code(group, c);
            self.codebooks.read((vector * og + row) * ig, scratch);
            for (out, value) in out.iter_mut().zip(&*scratch) {
                *out += value;
            }
        }
        out.iter_mut().for_each(|v| *v *= scale);
    }
}

impl PackedWeight for CodebookWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (og, ig) = (self.sizes.out_group_size, self.sizes.in_group_size);
        let per_row = self.shape[1] / ig;
        let (mut scratch, mut vector) = (vec![0.0; ig], vec![0.0; ig]);
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let scale = self.scales.get(row / og);
            let mut at = cols.start;
            while at < cols.end {
                let (b, skip) = (at / ig, at % ig);
                let take = (ig - skip).min(cols.end - at);
                let group = row / og * per_row + b;
                self.decode_vector(group, row % og, scale, &mut scratch, &mut vector);
                out[at - cols.start..][..take].copy_from_slice(&vector[skip..skip + take]);
                at += take;
            }
        }
    }

    fn packed_bytes(&self) -> usize {
        self.codes.len() + self.codebooks.byte_len() + self.scales.byte_len()
    }

    fn info(&self) -> WeightInfo {
        let sizes = &self.sizes;
        let weights = sizes.out_group_size * sizes.in_group_size;
        let bits = sizes.num_codebooks * sizes.nbits_per_codebook as usize;
        WeightInfo {
            bits: bits.div_ceil(weights) as u32,
            group_size: Some(weights),
            format: format!("{}x{}", sizes.num_codebooks, sizes.nbits_per_codebook),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floats::FloatFormat;

    const SIZES: CodebookShape = CodebookShape {
        out_group_size: 2,
        in_group_size: 3,
        num_codebooks: 2,
        nbits_per_codebook: 2,
        code_bytes: 1,
    };

    fn parts() -> (Vec<u8>, Vec<f32>, Vec<f32>) {
        // The upper bits of a code do not count: −1 is entry 3.
        let codes = (0..3 * 2 * 2).map(|i| (i * 55 + 0xfd) as u8).collect();
        let books = (0..2 * 4 * 2 * 3).map(|i| i as f32 * 0.25 - 3.0).collect();
        (codes, books, vec![2.0, -0.5, 3.0])
    }

    fn make(sizes: CodebookShape) -> Result<CodebookWeight, WeightError> {
        let (codes, books, scales) = parts();
        let floats = |v: &[f32]| Floats::from_f32(v, FloatFormat::F16).unwrap();
        CodebookWeight::new([6, 6], sizes, codes.into(), floats(&books), floats(&scales))
    }

    #[test]
    fn every_tile_equals_the_definition() {
        let weight = make(SIZES).unwrap();
        let (codes, books, scales) = parts();
        let value = |n: usize, k: usize| {
            let group = n / 2 * 2 + k / 3;
            let entry = |c: usize| {
                let code = usize::from(codes[group * 2 + c] & 3);
                books[((c * 4 + code) * 2 + n % 2) * 3 + k % 3]
            };
            (entry(0) + entry(1)) * scales[n / 2]
        };
        for r0 in 0..6 {
            for c0 in 0..6 {
                for c1 in c0 + 1..=6 {
                    let mut out = vec![f32::NAN; (6 - r0) * (c1 - c0)];
                    weight.decode_tile(r0..6, c0..c1, &mut out);
                    let expected: Vec<f32> = (r0..6)
                        .flat_map(|r| (c0..c1).map(move |c| value(r, c)))
                        .collect();
                    assert_eq!(out, expected, "({r0}, {c0}..{c1})");
                }
            }
        }
        assert_eq!(weight.info().bits, 1);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let with = |change: fn(&mut CodebookShape)| {
            let mut sizes = SIZES;
            change(&mut sizes);
            make(sizes).is_err()
        };
        assert!(with(|s| s.in_group_size = 4));
        assert!(with(|s| s.out_group_size = 0));
        assert!(with(|s| s.nbits_per_codebook = 3));
        assert!(with(|s| s.nbits_per_codebook = 9));
        assert!(with(|s| s.num_codebooks = 3));
        assert!(with(|s| s.num_codebooks = usize::MAX));
        assert!(with(|s| s.code_bytes = 3));
    }
}
