//! Quantizing as the library does, by the `scale_method` of the configuration.

use qoft_scheme::kernels::{FloatFormat, Floats, Matrix, transpose};
use qoft_scheme::{Grid, NewTensor, Requantize, Result};
use rayon::prelude::*;

use crate::cards::Cards;
use crate::config::{ScaleRounding, WeightMethod};
use crate::layout::{IncLayer, Mode};
use crate::numbers::Numbers;
use crate::split::Split;

/// Weights use so much of the range of their format.
const BACKOFF: f32 = 0.5;
/// The smallest scale is the smallest normal number of bf16.
const SMALLEST: f32 = f32::MIN_POSITIVE;
/// Powers of two around a scale that a search tries.
const SEARCHED: std::ops::Range<i32> = -3..5;

/// The layer again: names, granularity of the scales, and the quantization of its input are
/// kept. Each card's part is quantized as a weight of its own, as each card does it.
///
/// # Errors
/// If the method for scales is not known, a scale is not finite, or a tensor is missing.
pub fn requantize(parsed: &IncLayer, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
    let (layer, split) = (&how.current, parsed.split);
    let [n, k] = split.part;
    let rule = Rule {
        method: parsed.weight_method.clone()?,
        numbers: parsed.numbers,
        high: parsed.high_precision.clone()?,
        gaudi2: parsed.gaudi2,
    };
    let mut parts = Vec::new();
    for (rank, scale) in parsed.scales.iter().enumerate() {
        let part = split.cut_matrix(weight, rank);
        let scales = rule.scales(&part, scale.elements() == 1);
        let scales = Floats::from_f32(&scales, scale.float_format()?)?;
        parts.push(Part::new(&rule, scales));
    }
    let grid = Bytes {
        split,
        parts,
        numbers: rule.numbers,
        rounding: (parsed.mode == Mode::Qdq).then_some(rule.high),
    };
    let codes = how.search.codes(weight, &grid);

    let cards = Cards {
        layer: *layer,
        count: split.count,
    };
    let mut written = Vec::new();
    for (rank, part) in grid.parts.iter().enumerate() {
        let codes = transpose(&split.cut(&codes, rank), 1, [n, k]);
        written.push(layer.rewritten(&cards.name("weight", rank), codes)?);
        let (name, scales) = (parsed.mode.weight_scale(), part.bytes());
        written.push(layer.rewritten(&cards.name(name, rank), scales)?);
    }
    layer.with_rest(written)
}

/// How scales are found.
pub struct Rule {
    pub method: WeightMethod,
    pub numbers: Numbers,
    /// Scales are computed in this dtype.
    pub high: FloatFormat,
    pub gaudi2: bool,
}

impl Rule {
    fn round(&self, value: f32) -> f32 {
        let mut value = [value];
        self.high.round(&mut value);
        value[0]
    }

    /// What weights are multiplied with; the library does not divide by the scale.
    fn inverse(&self, scale: f32) -> f32 {
        self.round(scale.recip())
    }

    /// The scales of a card's part: one, or one for each row.
    pub fn scales(&self, part: &Matrix, is_single: bool) -> Vec<f32> {
        if is_single {
            return vec![self.scale(&part.values)];
        }
        let rows = part.values.par_chunks_exact(part.shape[1]);
        rows.map(|row| self.scale(row)).collect()
    }

    /// The scale of some weights.
    fn scale(&self, weights: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let exact = self.round(self.round(largest) / (self.numbers.max * BACKOFF));
        let scale = self.rounded(exact.max(SMALLEST));
        if !self.method.search {
            return scale;
        }
        let mut best = (f64::INFINITY, scale);
        for power in SEARCHED {
            let scale = self.in_hardware(scale * (power as f32).exp2());
            if scale >= SMALLEST && scale.is_finite() {
                let error = self.error(weights, scale);
                if error < best.0 {
                    best = (error, scale);
                }
            }
        }
        best.1
    }

    fn rounded(&self, scale: f32) -> f32 {
        match self.method.rounding {
            ScaleRounding::Arbitrary => scale,
            ScaleRounding::PowerOfTwo => self.power_of_two(scale),
            ScaleRounding::Hardware => self.in_hardware(self.power_of_two(scale)),
            ScaleRounding::Unit => 1.0,
            ScaleRounding::LargestOfHardware if self.gaudi2 => 16.0,
            ScaleRounding::LargestOfHardware => 128.0,
        }
    }

    /// The next power of two; the logarithm is rounded first, as in the library.
    fn power_of_two(&self, scale: f32) -> f32 {
        self.round(scale.log2()).ceil().exp2()
    }

    /// The next scale of the device from a power of two, if it has to be one of the device.
    fn in_hardware(&self, scale: f32) -> f32 {
        if self.method.rounding != ScaleRounding::Hardware {
            return scale;
        }
        let power = scale.log2();
        let power = if self.gaudi2 {
            ((power / 4.0).ceil() * 4.0).clamp(-8.0, 4.0)
        } else {
            power.clamp(-55.0, 7.0)
        };
        power.exp2()
    }

    /// The sum of the squared errors with a scale.
    fn error(&self, weights: &[f32], scale: f32) -> f64 {
        let inverse = self.inverse(scale);
        let Numbers { format, max } = self.numbers;
        let errors = weights
            .iter()
            .map(|&v| v - format.round(v * inverse, max) * scale);
        errors.map(|e| f64::from(e) * f64::from(e)).sum()
    }
}

/// The scales of a card's part: one, or one for each of its rows.
pub struct Part {
    format: FloatFormat,
    scales: Vec<f32>,
    inverses: Vec<f32>,
}

impl Part {
    /// The stored scales, and what weights are multiplied with by the rule.
    pub fn new(rule: &Rule, stored: Floats) -> Self {
        let mut scales = vec![0.0; stored.len()];
        stored.read(0, &mut scales);
        Self {
            format: stored.format(),
            inverses: scales.iter().map(|&scale| rule.inverse(scale)).collect(),
            scales,
        }
    }

    /// The scales as they are stored.
    pub fn bytes(&self) -> Vec<u8> {
        self.format.to_bytes(&self.scales)
    }
}

/// The numbers that a weight can have.
pub struct Bytes {
    pub split: Split,
    pub parts: Vec<Part>,
    pub numbers: Numbers,
    /// What products are rounded to.
    pub rounding: Option<FloatFormat>,
}

impl Grid for Bytes {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let (rank, row) = self.split.card(n, k);
        let part = &self.parts[rank];
        let row = if part.scales.len() == 1 { 0 } else { row };
        let Numbers { format, max } = self.numbers;
        let number = format.round(value * part.inverses[row], max);
        let mut product = [number * part.scales[row]];
        if let Some(rounding) = self.rounding {
            rounding.round(&mut product);
        }
        (format.code(number), product[0])
    }
}
