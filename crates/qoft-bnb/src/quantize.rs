//! Dense weights in the library's formats, as it quantizes and stores them.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{CodeSearch, DenseLayer, Dtype, NewTensor, QuantizedModel, Quantizer, Result};
use rayon::prelude::*;
use serde_json::Value;

use crate::config::{CommonSettings, NESTED_BLOCKSIZE, QUANT_STATE, Settings4Bit};
use crate::grid::{BlockFormat, Statistics, int8};
use crate::tables;

/// Quantizes into 4 bits.
pub struct To4Bit {
    /// What both formats have.
    pub common: CommonSettings,
    /// What this one has.
    pub settings: Settings4Bit,
}

impl Quantizer for To4Bit {
    fn config(&self, model: &QuantizedModel) -> Value {
        self.common.written(Some(&self.settings), model)
    }

    fn skips(&self) -> Option<&[String]> {
        self.common.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        four_bit(dense, &self.settings, search)
    }
}

/// Quantizes into int8.
pub struct To8Bit {
    /// The settings.
    pub common: CommonSettings,
}

impl Quantizer for To8Bit {
    fn config(&self, model: &QuantizedModel) -> Value {
        self.common.written(None, model)
    }

    fn skips(&self) -> Option<&[String]> {
        self.common.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        eight_bit(dense, search)
    }
}

/// A weight in 4 bits. Its values are those of its dtype, as in the library.
fn four_bit(
    dense: &DenseLayer,
    settings: &Settings4Bit,
    search: &dyn CodeSearch,
) -> Result<Vec<NewTensor>> {
    let (table, nested_table) = (tables::four_bit(settings.quant_type), tables::dynamic_map());
    let format = BlockFormat {
        table: &table,
        blocksize: settings.blocksize,
        nested: settings
            .double_quant
            .then_some((&nested_table, NESTED_BLOCKSIZE)),
    };
    let found = format.quantize(dense.weight, search);
    let size = settings.storage.bitsize() / 8;
    let length = dense.weight.values.len().div_ceil(2);
    if !length.is_multiple_of(size) {
        let expected = format!(
            "sizes whose {length} bytes of codes are a multiple of the {size} bytes of \
             `bnb_4bit_quant_storage`"
        );
        return Err(dense.sizes_error(expected));
    }
    let bytes = pack(&found.codes, length);
    let tensor = |suffix: &str, dtype, shape: &[usize], bytes| {
        dense.new_tensor(format!("weight{suffix}"), dtype, shape, bytes)
    };
    let floats = |suffix, values: &[f32]| {
        let bytes = FloatFormat::F32.to_bytes(values);
        tensor(suffix, Dtype::F32, &[values.len()], bytes)
    };
    let [n, k] = dense.weight.shape;
    let kind = settings.quant_type.name();
    let mut state = format!(
        "{{\"quant_type\": \"{kind}\", \"blocksize\": {}, \"dtype\": \"{}\", \"shape\": [{n}, {k}]",
        settings.blocksize,
        dense.format.torch_name(),
    );
    let mut tensors = vec![
        tensor("", settings.storage, &[length / size, 1], bytes),
        floats(".quant_map", &table),
    ];
    match found.statistics {
        Statistics::Plain(absmax) => tensors.push(floats(".absmax", &absmax)),
        Statistics::Nested {
            codes,
            absmax,
            offset,
        } => {
            tensors.push(tensor(".absmax", Dtype::U8, &[codes.len()], codes));
            tensors.push(floats(".nested_absmax", &absmax));
            tensors.push(floats(".nested_quant_map", &nested_table));
            state += &format!(
                ", \"nested_blocksize\": {NESTED_BLOCKSIZE}, \"nested_dtype\": \"float32\", \
                 \"nested_offset\": {}",
                python_float(f64::from(offset))
            );
        }
    }
    state.push('}');
    let name = format!("{}{kind}", &QUANT_STATE["weight".len()..]);
    tensors.push(tensor(&name, Dtype::U8, &[state.len()], state.into_bytes()));
    Ok(tensors)
}

/// A weight in int8.
fn eight_bit(dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
    // The library quantizes halves, whatever the weight's dtype is.
    let mut weight = dense.weight.clone();
    weight.round(FloatFormat::F16);
    if !weight.is_finite() {
        return Err(dense.error("a weight is too large for float16"));
    }
    let (codes, absmax) = int8(&weight, search);
    let scb = FloatFormat::F32.to_bytes(&absmax);
    Ok(vec![
        dense.new_tensor("weight", Dtype::I8, &weight.shape, codes),
        dense.new_tensor("SCB", Dtype::F32, &weight.shape[..1], scb),
        dense.new_tensor("weight_format", Dtype::U8, &[], vec![0]),
    ])
}

/// Two codes a byte, the first in the high half. Storage dtypes of more than a byte leave a few bytes
/// at the end.
pub fn pack(codes: &[u8], length: usize) -> Vec<u8> {
    /// Bytes that one task makes.
    const PIECE: usize = 1 << 14;
    let mut bytes = vec![0; length];
    let pieces = bytes.par_chunks_mut(PIECE);
    let pieces = pieces.zip(codes.par_chunks(2 * PIECE));
    pieces.for_each(|(bytes, codes)| {
        for (byte, [a, b]) in bytes.iter_mut().zip(codes.as_chunks::<2>().0) {
            *byte = a << 4 | b;
        }
    });
    bytes
}

/// A float as Python's `json` writes it.
pub fn python_float(value: f64) -> String {
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
    fn two_codes_are_a_byte() {
        assert_eq!(pack(&[1, 2, 3, 15], 2), [0x12, 0x3f]);
        assert_eq!(pack(&[1, 2], 4), [0x12, 0, 0, 0]);
    }
}
