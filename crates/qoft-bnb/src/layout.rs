//! bitsandbytes' tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft_scheme::{Dtype, LayerSource, LoadedLinear, Purpose, QuantBackend, Result, TensorView};

use crate::config::QuantState;

/// 1/127 as the reference spells it: `w = (q · SCB) · this`, rounded after each step.
pub const ONE_127TH: f32 = 7.874_016e-3;

/// A 4-bit layer. Two weights share a byte, the first in the high half; ours come low half first.
pub fn load_4bit(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    purpose: Purpose,
) -> Result<LoadedLinear> {
    let state = QuantState::read(backend, layer)?;
    let shape = shape(backend, layer, &state)?;
    layer.check_shape(backend, shape)?;
    let weight = layer.tensor("weight")?;
    let storage = [Dtype::U8, Dtype::I8, Dtype::BF16, Dtype::F16, Dtype::F32];
    weight.expect_dtype(&storage)?;
    let codes: Vec<u8> = weight
        .bytes()
        .iter()
        .map(|byte| byte.rotate_left(4))
        .collect();
    let map = layer.tensor("weight.quant_map")?;
    let table: [f32; 16] = fixed(&map)?;
    let packed = GroupedWeight::new(
        shape,
        Codes {
            bytes: codes.into(),
            bits: 4,
        },
        CodeMap::Table16(Box::new(table)),
        Groups::Flat(state.blocksize),
        scales(backend, layer, &state)?,
        state.format(),
    )
    .map_err(layer.weight_error(backend))?;
    // The reference computes with the unrounded products; only its dequantization rounds.
    let packed = match purpose {
        Purpose::Forward => packed,
        Purpose::Dequantize => packed.with_rounding(state.dtype.format()),
    };
    let bias = layer.bias(shape[0])?;
    Ok(LoadedLinear {
        weight: Arc::new(packed),
        bias,
        input_quantizer: None,
    })
}

fn shape(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    state: &QuantState,
) -> Result<[usize; 2]> {
    match state.shape.as_deref() {
        Some(&[n, k]) => Ok([n, k]),
        Some(other) => {
            Err(layer.error(backend, format!("expected a matrix, found shape {other:?}")))
        }
        None => layer
            .expected_shape()
            .ok_or_else(|| layer.error(backend, "the quantization state has no shape")),
    }
}

fn scales(backend: &dyn QuantBackend, layer: &LayerSource, state: &QuantState) -> Result<Scales> {
    let absmax = layer.tensor("weight.absmax")?;
    if absmax.dtype() == Dtype::F32 {
        return absmax.floats().map(Scales::Plain);
    }
    absmax.expect_dtype(&[Dtype::U8, Dtype::F32])?;
    let missing = |key: &str| layer.error(backend, format!("nested absmax without `{key}`"));
    let block = state
        .nested_blocksize
        .ok_or_else(|| missing("nested_blocksize"))?;
    let offset = state
        .nested_offset
        .ok_or_else(|| missing("nested_offset"))? as f32;
    let nested = layer.tensor("weight.nested_absmax")?;
    let blocks = absmax.elements().div_ceil(block.max(1));
    nested.expect_shape(&[blocks])?;
    Ok(Scales::Nested {
        codes: absmax.bytes().clone(),
        table: Box::new(fixed(&layer.tensor("weight.nested_quant_map")?)?),
        absmax: nested.floats()?,
        block,
        offset,
    })
}

/// A vector of so many finite `f32` values.
pub fn fixed<const N: usize>(tensor: &TensorView) -> Result<[f32; N]> {
    tensor.expect_dtype(&[Dtype::F32])?;
    let values = tensor.to_finite_f32()?;
    let found = values.len();
    values
        .try_into()
        .map_err(|_| tensor.error(format!("{N} values"), found))
}

/// An int8 layer: rows of codes and their absmax. The codes stay on the memory map.
pub fn load_8bit(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<LoadedLinear> {
    let weight = layer.tensor("weight")?;
    weight.expect_dtype(&[Dtype::I8])?;
    let &[n, k] = weight.shape() else {
        return Err(weight.error("a matrix", format!("shape {:?}", weight.shape())));
    };
    layer.check_shape(backend, [n, k])?;
    if let Some(format) = layer.get("weight_format") {
        format.expect_dtype(&[Dtype::U8])?;
        if format.bytes().iter().any(|&b| b != 0) {
            return Err(format.error("0 (row-major)", format!("{:?}", format.bytes())));
        }
    }
    let scb = layer.tensor("SCB")?;
    scb.expect_dtype(&[Dtype::F32])?.expect_shape(&[n])?;
    let packed = GroupedWeight::new(
        [n, k],
        Codes {
            bytes: weight.bytes().clone(),
            bits: 8,
        },
        CodeMap::Int8,
        Groups::ROW,
        Scales::Plain(scb.floats()?),
        "int8",
    )
    .map_err(layer.weight_error(backend))?
    .with_factor(ONE_127TH);
    let bias = layer.bias(n)?;
    Ok(LoadedLinear {
        weight: Arc::new(packed),
        bias,
        input_quantizer: None,
    })
}
