//! Quantizing as bitsandbytes' CPU code does.

use qoft_scheme::kernels::{FloatFormat, Matrix, count_less, whole};
use qoft_scheme::{
    CodeSearch, Dtype, Grid, LayerSource, NewTensor, QuantBackend, RequantizeOptions, Result,
};
use rayon::prelude::*;

use crate::config::{QUANT_STATE, QuantState};
use crate::layout::{ONE_127TH, fixed};

/// Absmax values that are smaller count as this.
const TINY: f32 = 1e-38;

/// A 4-bit layer again, with its type, block size and nesting.
pub fn requantize_4bit(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
    options: &RequantizeOptions,
) -> Result<Vec<NewTensor>> {
    let state = QuantState::read(backend, layer)?;
    let mut weight = weight.clone();
    // The library quantizes a weight that has the dtype of the first one.
    weight.round(state.dtype.format());
    let blocks = weight.values.par_chunks(state.blocksize);
    let absmax: Vec<f32> = blocks.map(largest).collect();
    let (scales, statistics) = match layer.get("weight.nested_absmax") {
        None => (
            absmax.clone(),
            vec![floats(layer, "weight.absmax", &absmax)],
        ),
        Some(_) => nested(backend, layer, &state, &absmax)?,
    };
    let table: [f32; 16] = fixed(&layer.tensor("weight.quant_map")?)?;
    let grid = Blocks {
        levels: Levels::new(&table),
        table,
        inverse: absmax.iter().map(|a| 1.0 / a.max(TINY)).collect(),
        absmax,
        scales,
        blocksize: state.blocksize,
        shape: weight.shape,
    };
    let codes = options.search.codes(&weight, &grid);
    let stored = layer.tensor("weight")?;
    let mut tensors = vec![
        layer.rewritten("weight", packed(&codes, stored.bytes().len()))?,
        layer.copy("weight.quant_map")?,
    ];
    if !statistics.iter().any(|t| t.suffix.starts_with(QUANT_STATE)) {
        let suffix = layer.suffixes().find(|s| s.starts_with(QUANT_STATE));
        tensors.extend(suffix.map(|suffix| layer.copy(suffix)).transpose()?);
    }
    tensors.extend(statistics);
    Ok(tensors)
}

/// Two codes a byte. Storage dtypes of more than a byte leave a few bytes at the end.
fn packed(codes: &[u8], length: usize) -> Vec<u8> {
    /// Bytes that one task makes.
    const PIECE: usize = 1 << 14;
    let mut bytes = vec![0; length];
    let pieces = bytes.par_chunks_mut(PIECE);
    let pieces = pieces.zip(codes.par_chunks(2 * PIECE));
    pieces.for_each(|(bytes, codes)| {
        // The first of two codes is in the high half.
        let (pairs, last) = codes.as_chunks::<2>();
        for (byte, [a, b]) in bytes.iter_mut().zip(pairs) {
            *byte = a << 4 | b;
        }
        if let ([code], Some(byte)) = (last, bytes.get_mut(pairs.len())) {
            *byte = code << 4;
        }
    });
    bytes
}

fn largest(values: &[f32]) -> f32 {
    // Of magnitudes the bits have the same order as the numbers, and integers are compared several
    // at once.
    let bits = values.iter().map(|v| v.abs().to_bits());
    f32::from_bits(bits.fold(0, u32::max))
}

fn floats(layer: &LayerSource, suffix: &str, values: &[f32]) -> NewTensor {
    let bytes = FloatFormat::F32.to_bytes(values);
    layer.new_tensor(suffix, Dtype::F32, &[values.len()], bytes)
}

/// Double quantization: the absmax values as they come back, and their tensors.
fn nested(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    state: &QuantState,
    absmax: &[f32],
) -> Result<(Vec<f32>, Vec<NewTensor>)> {
    let block = state
        .nested_blocksize
        .filter(|&block| block > 0)
        .ok_or_else(|| layer.error(backend, "nested absmax without `nested_blocksize`"))?;
    let map = layer.tensor("weight.nested_quant_map")?;
    let table: [f32; 256] = fixed(&map)?;
    let levels = Levels::new(&table);
    let offset = mean(absmax);
    let centered: Vec<f32> = absmax.iter().map(|a| a - offset).collect();
    let outer: Vec<f32> = centered.chunks(block).map(largest).collect();
    let mut codes = Vec::with_capacity(absmax.len());
    let mut scales = Vec::with_capacity(absmax.len());
    for (values, &outer) in centered.chunks(block).zip(&outer) {
        let inverse = 1.0 / outer.max(TINY);
        for &value in values {
            // The library divides in a block that is not full.
            let t = if values.len() == block {
                value * inverse
            } else {
                value / outer.max(TINY)
            };
            let code = levels.nearest(t);
            codes.push(code);
            scales.push(table[usize::from(code)] * outer + offset);
        }
    }
    let (suffix, text) = with_offset(backend, layer, offset)?;
    let tensors = vec![
        layer.new_tensor("weight.absmax", Dtype::U8, &[codes.len()], codes),
        floats(layer, "weight.nested_absmax", &outer),
        layer.copy("weight.nested_quant_map")?,
        layer.new_tensor(suffix, Dtype::U8, &[text.len()], text.into_bytes()),
    ];
    Ok((scales, tensors))
}

/// The mean in `f32`; torch adds in another order, so the last bit may differ from its.
fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    (sum as f32) / values.len() as f32
}

/// The quantization state with another `nested_offset`, and everything else as it was written.
fn with_offset(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    offset: f32,
) -> Result<(String, String)> {
    const KEY: &str = "\"nested_offset\":";
    let missing = || layer.error(backend, "nested absmax without `nested_offset`");
    let suffix = layer
        .suffixes()
        .find(|s| s.starts_with(QUANT_STATE))
        .ok_or_else(missing)?;
    let text = layer.tensor(suffix)?.bytes().to_vec();
    let text = String::from_utf8(text).map_err(|_| missing())?;
    let start = text.find(KEY).ok_or_else(missing)? + KEY.len();
    let end = text[start..]
        .find([',', '}'])
        .map(|end| start + end)
        .ok_or_else(missing)?;
    let number = python_float(f64::from(offset));
    let text = format!("{} {number}{}", &text[..start], &text[end..]);
    Ok((suffix.to_owned(), text))
}

/// A float as Python's `json` writes it.
fn python_float(value: f64) -> String {
    let exponent: i32 = if value == 0.0 {
        0
    } else {
        let text = format!("{value:e}");
        let exponent = text.split_once('e').and_then(|(_, e)| e.parse().ok());
        exponent.unwrap_or(0)
    };
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, _) = text.split_once('e').unwrap_or((&text, ""));
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The entries of a table in the order of their values.
struct Levels<const N: usize> {
    codes: [u8; N],
    /// Between neighbours, and at last a number beyond all others.
    middles: [f32; N],
}

impl<const N: usize> Levels<N> {
    fn new(table: &[f32; N]) -> Self {
        let value = |code: u8| table[usize::from(code)];
        let mut codes = std::array::from_fn(|code| code as u8);
        // Stable: of fp4's two zeros, code 0 comes before code 8.
        codes.sort_by(|&a, &b| value(a).total_cmp(&(value(b) + 0.0)));
        let mut middles = [f32::INFINITY; N];
        for (middle, pair) in middles.iter_mut().zip(codes.windows(2)) {
            *middle = (value(pair[0]) + value(pair[1])) / 2.0;
        }
        Self { codes, middles }
    }

    /// The code of the nearest entry; the lower one of two that are equally near.
    fn nearest(&self, t: f32) -> u8 {
        self.codes[self.middles.partition_point(|&middle| middle < t)]
    }

    /// The codes of the entries that are nearest to `scale` times each value.
    fn nearest_to_all(&self, values: &[f32], scale: f32, codes: &mut [u8]) {
        count_less(&self.middles, values, scale, codes);
        for code in codes {
            *code = self.codes[usize::from(*code) % N];
        }
    }
}

/// Blocks of the flattened weight.
struct Blocks {
    levels: Levels<16>,
    table: [f32; 16],
    absmax: Vec<f32>,
    inverse: Vec<f32>,
    /// The absmax values as they come back from their own quantization.
    scales: Vec<f32>,
    blocksize: usize,
    shape: [usize; 2],
}

impl Blocks {
    /// Whether a block has all its weights: the library divides by the absmax of one that has not,
    /// and multiplies by the inverse elsewhere.
    fn is_full(&self, block: usize) -> bool {
        (block + 1) * self.blocksize <= self.shape[0] * self.shape[1]
    }
}

impl Grid for Blocks {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let block = (n * self.shape[1] + k) / self.blocksize;
        let t = if self.is_full(block) {
            value * self.inverse[block]
        } else {
            value / self.absmax[block].max(TINY)
        };
        let code = self.levels.nearest(t);
        (code, self.table[usize::from(code)] * self.scales[block])
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        let first = n * self.shape[1];
        let mut k = 0;
        while k < values.len() {
            let block = (first + k) / self.blocksize;
            let end = ((block + 1) * self.blocksize - first).min(values.len());
            if self.is_full(block) {
                let (values, codes) = (&values[k..end], &mut codes[k..end]);
                let scale = self.inverse[block];
                self.levels.nearest_to_all(values, scale, codes);
            } else {
                for k in k..end {
                    codes[k] = self.nearest(n, k, values[k]).0;
                }
            }
            k = end;
        }
    }
}

/// An int8 layer again.
pub fn requantize_8bit(
    layer: &LayerSource,
    weight: &Matrix,
    search: &dyn CodeSearch,
) -> Result<Vec<NewTensor>> {
    // The library quantizes halves, whatever the weight's dtype is.
    let mut weight = weight.clone();
    weight.round(FloatFormat::F16);
    let rows = weight.values.par_chunks(weight.shape[1]);
    let grid = Rows(rows.map(largest).collect());
    let mut tensors = vec![
        layer.rewritten("weight", search.codes(&weight, &grid))?,
        floats(layer, "SCB", &grid.0),
    ];
    if layer.has("weight_format") {
        tensors.push(layer.copy("weight_format")?);
    }
    Ok(tensors)
}

/// The largest magnitude of each row.
struct Rows(Vec<f32>);

impl Grid for Rows {
    fn nearest(&self, n: usize, _k: usize, value: f32) -> (u8, f32) {
        let largest = self.0[n];
        if largest == 0.0 {
            return (0, 0.0);
        }
        let code = whole((value * (127.0 / largest)).clamp(-127.0, 127.0));
        (code as i8 as u8, code * largest * ONE_127TH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        assert_eq!(python_float(0.1), "0.1");
        assert_eq!(python_float(f64::from(0.1f32)), "0.10000000149011612");
        assert_eq!(python_float(2.5e-5), "2.5e-05");
        assert_eq!(python_float(-3e20), "-3e+20");
        assert_eq!(python_float(4.0), "4.0");
        assert_eq!(python_float(0.0), "0.0");
    }

    #[test]
    fn two_codes_are_a_byte_and_an_odd_one_is_in_the_high_half() {
        assert_eq!(packed(&[1, 2, 3, 15, 4], 3), [0x12, 0x3f, 0x40]);
        assert_eq!(packed(&[1, 2], 4), [0x12, 0, 0, 0]);
    }

    #[test]
    fn a_row_gets_the_codes_of_its_weights() {
        let table = std::array::from_fn(|i| ((i * 7 % 16) as f32 - 7.0) / 8.0);
        let shape = [3, 41];
        let absmax: Vec<f32> = (0..8).map(|i| 1.0 + i as f32 / 3.0).collect();
        let grid = Blocks {
            levels: Levels::new(&table),
            table,
            inverse: absmax.iter().map(|a| 1.0 / a).collect(),
            scales: absmax.clone(),
            absmax,
            blocksize: 16,
            shape,
        };
        for n in 0..shape[0] {
            let values: Vec<f32> = (0..41).map(|k| ((n * 41 + k) as f32).sin() * 2.0).collect();
            let mut codes = vec![0; values.len()];
            grid.nearest_in_row(n, &values, &mut codes);
            let each = values.iter().enumerate();
            let each: Vec<u8> = each.map(|(k, &v)| grid.nearest(n, k, v).0).collect();
            assert_eq!(codes, each);
        }
    }

    #[test]
    fn ties_go_to_the_lower_entry_and_positive_zeros_to_the_second_code() {
        let levels = Levels::new(&[0.0, 1.0, 0.0, -1.0]);
        let codes = [-0.5, -0.4, 0.0, 0.1, 0.5, 0.6].map(|t| levels.nearest(t));
        assert_eq!(codes, [3, 0, 0, 2, 2, 1]);
    }
}
