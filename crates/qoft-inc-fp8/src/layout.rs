//! The library's tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::{
    CodeMap, Codes, Fp8Format, GroupedWeight, Groups, Scales, check_finite, transpose,
};
use qoft_scheme::{Dtype, PackedWeight, QuantBackend, Result, TensorView};

use crate::cards::Cards;
use crate::config;
use crate::merge::merge;

/// Products up to here are finite in every dtype.
const SAFE_PRODUCT: f32 = 65504.0;

/// How the library was run, which shows in the names of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On a Gaudi: the scales are applied to the products.
    Gaudi,
    /// Quantize and dequantize: the scales are applied to weight and input, and both are rounded.
    Qdq,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 2] = [Self::Gaudi, Self::Qdq];

    /// The mode that the names of a layer's tensors tell.
    pub fn of(cards: &Cards) -> Self {
        let names = |mode: &Self| [mode.weight_scale(), mode.input_scale()];
        let count = |mode: &Self| names(mode).iter().filter(|n| cards.has(n)).count();
        if count(&Self::Qdq) > count(&Self::Gaudi) {
            Self::Qdq
        } else {
            Self::Gaudi
        }
    }

    /// Fails where the library does not know several cards.
    pub fn check_cards(self, backend: &dyn QuantBackend, cards: &Cards) -> Result<()> {
        if self == Self::Qdq && cards.count > 1 {
            let reason = "the tensors of several cards in QDQ mode: \
                          the library has no rule for their scales";
            return Err(cards.layer.error(backend, reason));
        }
        Ok(())
    }

    /// The scale of the weight.
    pub fn weight_scale(self) -> &'static str {
        match self {
            Self::Gaudi => "scale_weight",
            Self::Qdq => "dequant_weights.scale",
        }
    }

    /// The scale of the input.
    pub fn input_scale(self) -> &'static str {
        match self {
            Self::Gaudi => "scale_input",
            Self::Qdq => "quant_input.scale",
        }
    }
}

/// A weight and the format of its numbers.
pub fn load(
    backend: &dyn QuantBackend,
    cards: &Cards,
    mode: Mode,
) -> Result<(Arc<dyn PackedWeight>, Fp8Format)> {
    let layer = &cards.layer;
    for name in ["quant_input.zero_point", "dequant_weights.zero_point"] {
        if cards.has(name) {
            cards.tensors(name)?.iter().try_for_each(expect_zero)?;
        }
    }
    let parts = cards.tensors("weight")?;
    let (format, [k, n]) = (format(&parts[0])?, sizes(&parts[0])?);
    let scales = cards.tensors(mode.weight_scale())?;
    for scale in &scales {
        expect_scales(scale, n)?;
    }
    mode.check_cards(backend, cards)?;
    let (shape, codes, scales) = match (parts.as_slice(), scales.as_slice()) {
        ([part], [scales]) => {
            let codes = transpose(part.bytes(), 1, [k, n]);
            ([n, k], codes, scales.floats()?)
        }
        _ => merge(backend, cards, &parts, &scales, format)?,
    };
    layer.check_shape(backend, shape)?;
    let codes = Codes {
        bytes: codes.into(),
        bits: 8,
    };
    let groups = if scales.len() == 1 {
        Groups::TENSOR
    } else {
        Groups::ROW
    };
    let mut values = vec![0.0; scales.len()];
    scales.read(0, &mut values);
    let map = CodeMap::Table256(format.table());
    let scales = Scales::Plain(scales);
    let mut weight = GroupedWeight::new(shape, codes, map, groups, scales, format.name())
        .map_err(layer.weight_error(backend))?;
    if mode == Mode::Qdq {
        weight = weight.with_rounding(config::high_precision(layer)?);
    }
    let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    if largest * format.max() > SAFE_PRODUCT {
        check_finite(&weight).map_err(layer.weight_error(backend))?;
    }
    Ok((Arc::new(weight), format))
}

pub fn format(tensor: &TensorView) -> Result<Fp8Format> {
    tensor.expect_dtype(&[Dtype::F8_E4M3, Dtype::F8_E5M2])?;
    Ok(match tensor.dtype() {
        Dtype::F8_E5M2 => Fp8Format::E5m2,
        _ => Fp8Format::E4m3,
    })
}

/// Rows and columns as they are stored: input and output features.
pub fn sizes(tensor: &TensorView) -> Result<[usize; 2]> {
    match *tensor.shape() {
        [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        _ => {
            let found = format!("shape {:?}", tensor.shape());
            Err(tensor.error("a matrix with elements", found))
        }
    }
}

/// One scale, or one for each of `channels`.
pub fn expect_scales(tensor: &TensorView, channels: usize) -> Result<()> {
    match *tensor.shape() {
        [] | [1] => Ok(()),
        [count] if count == channels => Ok(()),
        _ => {
            let found = format!("shape {:?}", tensor.shape());
            Err(tensor.error(format!("one scale or [{channels}]"), found))
        }
    }
}

fn expect_zero(tensor: &TensorView) -> Result<()> {
    match tensor.to_f32()?.iter().find(|value| **value != 0.0) {
        None => Ok(()),
        Some(value) => Err(tensor.error("0", value)),
    }
}
