//! The library's tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::ops::InputQuantizer;
use qoft_scheme::kernels::{
    CodeMap, Codes, FloatFormat, Fp8Format, GroupedWeight, Groups, Scales, transpose,
};
use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::cards::Cards;
use crate::config::{DynamicMethod, IncConfig, WeightMethod};
use crate::input::{DynamicInput, SCALE_INV, StaticInput, StaticSteps};
use crate::merge::merge;
use crate::numbers::Numbers;
use crate::split::Split;

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
    fn check_cards(self, cards: &Cards) -> Result<()> {
        if self == Self::Qdq && cards.count > 1 {
            let reason = "the tensors of several cards in QDQ mode: \
                          the library has no rule for their scales";
            return Err(cards.layer.error(reason));
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

/// A layer's tensors and what they are, checked against each other.
pub struct IncLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// How the library was run.
    pub mode: Mode,
    /// Where the parts of the cards lie.
    pub split: Split,
    /// The numbers of the codes.
    pub numbers: Numbers,
    /// Numbers are those of a Gaudi 2.
    pub gaudi2: bool,
    /// The dtype of everything that is not quantized.
    pub high_precision: Result<FloatFormat>,
    /// How scales of weights are found.
    pub weight_method: Result<WeightMethod>,
    /// The scales of the weight on each card.
    pub scales: Vec<TensorView>,
    /// The codes on each card, `[in_features, out_features]`.
    parts: Vec<TensorView>,
    /// `[out_features]`.
    pub bias: Option<Vec<f32>>,
    /// The quantization of the input, or why there is none.
    pub quantizer: Result<Arc<dyn InputQuantizer>>,
}

impl IncLayer {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, config: &IncConfig) -> Result<Self> {
        let cards = Cards::of(layer);
        let mode = Mode::of(&cards);
        for name in ["quant_input.zero_point", "dequant_weights.zero_point"] {
            if cards.has(name) {
                cards.tensors(name)?.iter().try_for_each(expect_zero)?;
            }
        }
        let parts = cards.tensors("weight")?;
        let (format, [k, n]) = (format(&parts[0])?, parts[0].matrix()?);
        let scales = cards.tensors(mode.weight_scale())?;
        for scale in &scales {
            expect_scales(scale, n)?;
        }
        mode.check_cards(&cards)?;
        let split = Split {
            part: [n, k],
            count: cards.count,
            axis: cards.axis([n, k]),
        };
        let too_large = || layer.error("more elements than can be counted");
        let shape = split.shape().ok_or_else(too_large)?;
        let numbers = Numbers::of(format, config.gaudi2);
        Ok(Self {
            shape,
            mode,
            split,
            numbers,
            gaudi2: config.gaudi2,
            high_precision: config.high_precision.clone(),
            weight_method: config.weight_method.clone(),
            scales,
            parts,
            bias: cards.bias(shape[0])?,
            quantizer: quantizer(&cards, mode, numbers, config),
        })
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let format = self.numbers.format;
        let (codes, scales) = match (self.parts.as_slice(), self.scales.as_slice()) {
            ([part], [scales]) => {
                let codes = transpose(part.bytes(), 1, part.matrix()?);
                (codes, scales.floats()?)
            }
            _ => merge(self.split, &self.parts, &self.scales, format)?,
        };
        let codes = Codes::new(codes, 8);
        let groups = if scales.len() == 1 {
            Groups::TENSOR
        } else {
            Groups::ROW
        };
        let map = CodeMap::Table256(format.table());
        let parts = GroupedWeight::builder(self.shape, codes, map, groups, Scales::Plain(scales));
        let parts = match self.mode {
            Mode::Gaudi => parts,
            Mode::Qdq => parts.rounding(self.high_precision.clone()?),
        };
        Ok(parts.build(format.name())?)
    }
}

fn format(tensor: &TensorView) -> Result<Fp8Format> {
    tensor.expect_dtype(&[Dtype::F8_E4M3, Dtype::F8_E5M2])?;
    Ok(match tensor.dtype() {
        Dtype::F8_E5M2 => Fp8Format::E5m2,
        _ => Fp8Format::E4m3,
    })
}

/// One scale, or one for each of `channels`.
fn expect_scales(tensor: &TensorView, channels: usize) -> Result<()> {
    match *tensor.shape() {
        [] | [1] => Ok(()),
        [count] if count == channels => Ok(()),
        _ => {
            let expected = format!("one scale or [{channels}]");
            Err(tensor.error(expected, tensor.shown_shape()))
        }
    }
}

fn expect_zero(tensor: &TensorView) -> Result<()> {
    match tensor.to_f32()?.iter().find(|value| **value != 0.0) {
        None => Ok(()),
        Some(value) => Err(tensor.error("0", value)),
    }
}

/// The quantizer of a layer's input.
///
/// # Errors
/// If a scale is missing or no positive number, or the method of finding it is not known.
fn quantizer(
    cards: &Cards,
    mode: Mode,
    numbers: Numbers,
    config: &IncConfig,
) -> Result<Arc<dyn InputQuantizer>> {
    let Numbers { format, max } = numbers;
    let rounding = config.high_precision.clone()?;
    let has_scales = cards.has(mode.input_scale()) || cards.has(SCALE_INV);
    if mode == Mode::Gaudi
        && !has_scales
        && let Some(DynamicMethod {
            per_row,
            power_of_two,
        }) = config.dynamic_method.clone()?
    {
        return Ok(Arc::new(DynamicInput {
            format,
            max,
            per_row,
            power_of_two,
            rounding,
        }));
    }
    // Cards that measured different ranges: the larger one holds for all.
    let scale = scalar(cards, mode.input_scale(), f32::max)?;
    let steps = match mode {
        Mode::Gaudi => StaticSteps::Gaudi {
            scale_inv: scalar(cards, SCALE_INV, f32::min)?,
        },
        Mode::Qdq => StaticSteps::Qdq { rounding },
    };
    Ok(Arc::new(StaticInput {
        format,
        max,
        scale,
        steps,
    }))
}

/// A positive number, chosen from those of all cards.
fn scalar(cards: &Cards, name: &str, choose: fn(f32, f32) -> f32) -> Result<f32> {
    let numbers = cards.tensors(name)?;
    let numbers = numbers.iter().map(|tensor| tensor.one_positive("number"));
    let numbers: Vec<f32> = numbers.collect::<Result<_>>()?;
    Ok(numbers.into_iter().reduce(choose).unwrap_or(1.0))
}
