//! Changed weights in the form that a layer has.

use qoft_scheme::kernels::{FloatFormat, Matrix};
use qoft_scheme::{Dtype, LayerSource, NewTensor, Requantize, Result};

use crate::grid::{BlockFormat, Statistics, int8};
use crate::layout::FourBit;
use crate::quantize::{pack, python_float};
use crate::stored_scales::StoredScales;

/// A 4-bit layer again, with its type, block size and nesting. A search that chooses scales itself
/// has those that can be stored beside the others of the layer.
///
/// # Errors
/// If a tensor is missing.
pub fn four_bit(parsed: &FourBit, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let layer = &how.current;
    if let Some(search) = how.search.with_scales()
        && let Some(scales) = StoredScales::of(parsed)?
    {
        let found = search.codes_and_scales(weight, &scales);
        let codes = pack(&found.codes, parsed.packed_len());
        return layer.with_rest(vec![
            layer.rewritten("weight", codes)?,
            layer.rewritten("weight.absmax", scales.to_bytes(&found.scales))?,
        ]);
    }
    let mut weight = weight.clone();
    // The library quantizes a weight that has the dtype of the first one.
    weight.round(parsed.state.dtype.format());
    let format = BlockFormat {
        table: &parsed.table,
        blocksize: parsed.state.blocksize,
        nested: parsed
            .nested
            .as_ref()
            .map(|nested| (&nested.table, nested.block)),
    };
    let found = format.quantize(&weight, how.search);
    let bytes = pack(&found.codes, parsed.packed_len());
    let mut tensors = vec![layer.rewritten("weight", bytes)?];
    match found.statistics {
        Statistics::Plain(absmax) => tensors.push(floats(layer, "weight.absmax", &absmax)),
        Statistics::Nested {
            codes,
            absmax,
            offset,
        } => {
            let text = with_offset(parsed, layer, offset)?;
            let (absmax_name, state) = ("weight.absmax", &parsed.state_name);
            tensors.extend([
                layer.new_tensor(absmax_name, Dtype::U8, &[codes.len()], codes),
                floats(layer, "weight.nested_absmax", &absmax),
                layer.new_tensor(state, Dtype::U8, &[text.len()], text.into_bytes()),
            ]);
        }
    }
    layer.with_rest(tensors)
}

/// The quantization state with another `nested_offset`, and everything else as it was written.
fn with_offset(parsed: &FourBit, layer: &LayerSource, offset: f32) -> Result<String> {
    const KEY: &str = "\"nested_offset\":";
    let missing = || layer.error("nested absmax without `nested_offset`");
    let text = layer.tensor(&parsed.state_name)?.bytes().to_vec();
    let text = String::from_utf8(text).map_err(|_| missing())?;
    let start = text.find(KEY).ok_or_else(missing)? + KEY.len();
    let end = text[start..]
        .find([',', '}'])
        .map(|end| start + end)
        .ok_or_else(missing)?;
    let number = python_float(f64::from(offset));
    Ok(format!("{} {number}{}", &text[..start], &text[end..]))
}

/// An int8 layer again.
///
/// # Errors
/// If a weight is too large, or a tensor is missing.
pub fn eight_bit(weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    // The library quantizes halves, whatever the weight's dtype is.
    let mut weight = weight.clone();
    weight.round(FloatFormat::F16);
    let layer = &how.current;
    if !weight.is_finite() {
        return Err(layer.error("a weight is too large for float16"));
    }
    let (codes, absmax) = int8(&weight, how.search);
    layer.with_rest(vec![
        layer.rewritten("weight", codes)?,
        floats(layer, "SCB", &absmax),
    ])
}

fn floats(layer: &LayerSource, suffix: &str, values: &[f32]) -> NewTensor {
    let bytes = FloatFormat::F32.to_bytes(values);
    layer.new_tensor(suffix, Dtype::F32, &[values.len()], bytes)
}
