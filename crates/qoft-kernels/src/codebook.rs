//! Sums of vectors from learned codebooks: additive quantization.

mod device;
mod row;

use std::ops::Range;

use bytes::Bytes;

use self::row::Row;
use crate::device::DeviceWeight;
use crate::error::{WeightError, check_length, elements};
use crate::floats::{FloatFormat, Floats};
use crate::weight::{PackedWeight, WeightInfo, check_finite};

/// Codebooks that take at most so many bytes as `f32` are kept so: they stay in the cache nearest
/// to the processor or the next one, and their vectors need no conversion.
const SMALL: usize = 64 << 10;

/// Sizes of a [`CodebookWeight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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

impl CodebookShape {
    /// Sums of `num_codebooks` vectors that cover `[outputs, inputs]` `groups`; a codebook has
    /// 2 to the power of `nbits_per_codebook` of them, and a code is stored in `code_bytes`.
    pub fn new(
        [out_group_size, in_group_size]: [usize; 2],
        num_codebooks: usize,
        nbits_per_codebook: u32,
        code_bytes: usize,
    ) -> Self {
        Self {
            out_group_size,
            in_group_size,
            num_codebooks,
            nbits_per_codebook,
            code_bytes,
        }
    }
}

/// `w[a·og + u, b·ig + v] = scale[a] · Σ_c codebook[c, code[a, b, c], u, v]`, the sum taken in
/// order and in `f32`, then multiplied.
#[derive(Debug, Clone)]
pub struct CodebookWeight {
    shape: [usize; 2],
    sizes: CodebookShape,
    /// `[out_features / og, in_features / ig, num_codebooks]`, little-endian.
    codes: Bytes,
    codebooks: Codebooks,
    /// `[out_features / og]`.
    scales: Floats,
}

/// `[num_codebooks, 2^nbits, og, ig]`.
#[derive(Debug, Clone)]
enum Codebooks {
    /// Small ones with vectors of a common length, for codes of one or two bytes.
    Decoded(Box<[f32]>),
    /// In the dtype of their file.
    Stored(Floats),
}

impl Codebooks {
    fn new(values: Floats, sizes: &CodebookShape) -> Self {
        let common = matches!(sizes.in_group_size, 4 | 8 | 16 | 32) && sizes.code_bytes <= 2;
        if !common || values.len() * 4 > SMALL {
            return Self::Stored(values);
        }
        let mut decoded = vec![0.0; values.len()];
        values.read(0, &mut decoded);
        Self::Decoded(decoded.into())
    }
}

impl CodebookWeight {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the groups do not divide the shape, a part's length does not fit, or a weight is not
    /// finite.
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
        if sizes.num_codebooks == 0 {
            return Err(WeightError::Unsupported("number of codebooks"));
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
        let most = bound(&codebooks) * sizes.num_codebooks as f64 * bound(&scales);
        let weight = Self {
            shape,
            sizes,
            codes,
            codebooks: Codebooks::new(codebooks, &sizes),
            scales,
        };
        if most > f64::from(f32::MAX) {
            check_finite(&weight)?;
        }
        Ok(weight)
    }
}

/// No value is larger in magnitude; as `f64`, so that products of such numbers stay finite.
fn bound(values: &Floats) -> f64 {
    if values.format() == FloatFormat::F16 {
        return 65_504.0;
    }
    let (mut largest, mut chunk) = (0.0f32, [0.0; 64]);
    for start in (0..values.len()).step_by(64) {
        let chunk = &mut chunk[..64.min(values.len() - start)];
        values.read(start, chunk);
        largest = chunk.iter().fold(largest, |max, v| max.max(v.abs()));
    }
    f64::from(largest)
}

impl PackedWeight for CodebookWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (og, ig) = (self.sizes.out_group_size, self.sizes.in_group_size);
        for (n, out) in rows.zip(out.chunks_exact_mut(cols.len())) {
            let row = Row {
                first: n / og * (self.shape[1] / ig),
                inner: n % og,
                scale: self.scales.get(n / og),
            };
            match &self.codebooks {
                Codebooks::Decoded(books) => self.decoded(books, row, cols.start, out),
                Codebooks::Stored(books) => self.stored(books, row, cols.start, out),
            }
        }
    }

    fn device_weight(&self) -> Option<DeviceWeight> {
        self.words()
    }

    fn packed_bytes(&self) -> usize {
        let codebooks = match &self.codebooks {
            Codebooks::Decoded(values) => values.len() * 4,
            Codebooks::Stored(values) => values.byte_len(),
        };
        self.codes.len() + codebooks + self.scales.byte_len()
    }

    fn info(&self) -> WeightInfo {
        let sizes = &self.sizes;
        let weights = sizes.out_group_size * sizes.in_group_size;
        let bits = sizes.num_codebooks * sizes.nbits_per_codebook as usize;
        let format = format!("{}x{}", sizes.num_codebooks, sizes.nbits_per_codebook);
        WeightInfo::quantized(bits.div_ceil(weights) as u32, Some(weights), format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: CodebookShape = CodebookShape {
        out_group_size: 2,
        in_group_size: 3,
        num_codebooks: 2,
        nbits_per_codebook: 2,
        code_bytes: 1,
    };

    /// Codes, codebooks and scales of a matrix of 3 × 3 groups.
    fn parts(sizes: &CodebookShape) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
        // The upper bits of a code do not count: −1 is the last entry.
        let codes = 9 * sizes.num_codebooks * sizes.code_bytes;
        let vector = sizes.out_group_size * sizes.in_group_size;
        let values = (sizes.num_codebooks << sizes.nbits_per_codebook) * vector;
        (
            (0..codes).map(|i| (i * 55 + 0xfd) as u8).collect(),
            (0..values)
                .map(|i| (i % 241) as f32 * 0.25 - 30.0)
                .collect(),
            vec![2.0, -0.5, 3.0],
        )
    }

    /// A weight of `sizes` from parts that fit other sizes.
    fn make(
        sizes: CodebookShape,
        from: CodebookShape,
        format: FloatFormat,
    ) -> Result<CodebookWeight, WeightError> {
        let (codes, books, scales) = parts(&from);
        let floats = |v: &[f32]| Floats::from_f32(v, format).unwrap();
        let shape = [3 * from.out_group_size, 3 * from.in_group_size];
        CodebookWeight::new(shape, sizes, codes.into(), floats(&books), floats(&scales))
    }

    fn check(sizes: CodebookShape, format: FloatFormat) {
        let weight = make(sizes, sizes, format).unwrap();
        let (codes, books, scales) = parts(&sizes);
        let (og, ig) = (sizes.out_group_size, sizes.in_group_size);
        let value = |n: usize, k: usize| {
            let entry = |c: usize| {
                let at = (n / og * 3 + k / ig) * sizes.num_codebooks + c;
                let mut code = [0; 8];
                let bytes = &codes[at * sizes.code_bytes..][..sizes.code_bytes];
                code[..sizes.code_bytes].copy_from_slice(bytes);
                let code = u64::from_le_bytes(code) as usize % (1 << sizes.nbits_per_codebook);
                let vector = (c << sizes.nbits_per_codebook) + code;
                books[(vector * og + n % og) * ig + k % ig]
            };
            (0..sizes.num_codebooks).map(entry).sum::<f32>() * scales[n / og]
        };
        let [rows, cols] = weight.shape();
        let starts = [0, 1, ig - 1, ig, ig + 1, 2 * ig, cols - 1];
        let ends = [1, ig - 1, ig, ig + 1, 2 * ig, 2 * ig + 1, cols - 1, cols];
        for c0 in starts {
            for c1 in ends.into_iter().filter(|&c1| c1 > c0) {
                let mut out = vec![f32::NAN; (rows - 1) * (c1 - c0)];
                weight.decode_tile(1..rows, c0..c1, &mut out);
                let expected: Vec<f32> = (1..rows)
                    .flat_map(|r| (c0..c1).map(move |c| value(r, c)))
                    .collect();
                assert_eq!(out, expected, "{sizes:?} {format:?}, columns {c0}..{c1}");
            }
        }
    }

    #[test]
    fn every_tile_equals_the_definition() {
        for code_bytes in [1, 2, 4, 8] {
            for in_group_size in [2, 3, 4, 8, 16, 32, 600] {
                for num_codebooks in [1, 3] {
                    let sizes = CodebookShape {
                        in_group_size,
                        num_codebooks,
                        code_bytes,
                        ..SIZES
                    };
                    for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
                        check(sizes, format);
                    }
                }
            }
        }
        // Too large to be kept as f32.
        for in_group_size in [4, 8, 16] {
            let sizes = CodebookShape {
                in_group_size,
                nbits_per_codebook: 12,
                code_bytes: 2,
                ..SIZES
            };
            check(sizes, FloatFormat::F16);
        }
    }

    #[test]
    fn what_is_held_is_counted() {
        let sizes = CodebookShape {
            in_group_size: 8,
            ..SIZES
        };
        let bytes = |sizes| make(sizes, sizes, FloatFormat::F16).unwrap().packed_bytes();
        // Kept as f32, or as they are.
        assert_eq!(bytes(sizes), 18 + 4 * 128 + 6);
        assert_eq!(bytes(SIZES), 18 + 2 * 48 + 6);
        let info = make(SIZES, SIZES, FloatFormat::F16).unwrap().info();
        assert_eq!((info.bits, info.format.as_str()), (1, "2x2"));
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let with = |change: fn(&mut CodebookShape)| {
            let mut sizes = SIZES;
            change(&mut sizes);
            make(sizes, SIZES, FloatFormat::F16).is_err()
        };
        assert!(with(|s| s.in_group_size = 4));
        assert!(with(|s| s.out_group_size = 0));
        assert!(with(|s| s.nbits_per_codebook = 3));
        assert!(with(|s| s.nbits_per_codebook = 9));
        assert!(with(|s| s.num_codebooks = 0));
        assert!(with(|s| s.num_codebooks = 3));
        assert!(with(|s| s.num_codebooks = usize::MAX));
        assert!(with(|s| s.code_bytes = 3));
    }

    #[test]
    fn weights_that_are_too_large_are_refused() {
        let (codes, books, _) = parts(&SIZES);
        let make = |scale: f32| {
            let floats = |v: &[f32]| Floats::from_f32(v, FloatFormat::F32).unwrap();
            let scales = floats(&[scale; 3]);
            CodebookWeight::new([6, 9], SIZES, codes.clone().into(), floats(&books), scales)
        };
        assert!(make(1e36).is_ok());
        assert_eq!(make(3e38).unwrap_err(), WeightError::NotFinite("weights"));
    }
}
