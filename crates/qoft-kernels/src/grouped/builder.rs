//! Putting a grouped weight together: what its parts must be, in one place.

use super::GroupedWeight;
use crate::codes::{CodeMap, Codes};
use crate::error::{WeightError, check_length, elements};
use crate::floats::FloatFormat;
use crate::groups::{Groups, Scales, Zeros};
use crate::weight::check_finite;

/// Groups whose scales and zero points are looked at together.
const CHUNK: usize = 64;

/// The parts of a [`GroupedWeight`], see [`GroupedWeight::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct GroupedBuilder {
    shape: [usize; 2],
    codes: Codes,
    map: CodeMap,
    groups: Groups,
    scales: Scales,
    zeros: Option<Zeros>,
    factor: Option<f32>,
    rounding: FloatFormat,
}

impl GroupedWeight {
    /// Starts with the parts that every weight has; shape `[out_features, in_features]`.
    pub fn builder(
        shape: [usize; 2],
        codes: Codes,
        map: CodeMap,
        groups: Groups,
        scales: Scales,
    ) -> GroupedBuilder {
        GroupedBuilder {
            shape,
            codes,
            map,
            groups,
            scales,
            zeros: None,
            factor: None,
            rounding: FloatFormat::F32,
        }
    }
}

impl GroupedBuilder {
    /// Subtracts a zero point from every number before it is scaled, or adds one after.
    pub fn zeros(self, zeros: Zeros) -> Self {
        Self {
            zeros: Some(zeros),
            ..self
        }
    }

    /// Multiplies every weight by `factor`, after its scale.
    pub fn factor(self, factor: f32) -> Self {
        Self {
            factor: Some(factor),
            ..self
        }
    }

    /// Rounds after the subtraction (or before the addition) of zero points, and at the end.
    pub fn rounding(self, rounding: FloatFormat) -> Self {
        Self { rounding, ..self }
    }

    /// The weight. `format` is the name that `qoft inspect` prints.
    ///
    /// # Errors
    /// If the parts' lengths do not fit the shape, there is not one zero point for each group, or a
    /// scale or a weight is not finite.
    pub fn build(self, format: &'static str) -> Result<GroupedWeight, WeightError> {
        let shape = self.shape;
        let elements = elements(shape)?;
        self.map.check(&self.codes)?;
        check_length(
            "codes",
            Codes::byte_len(self.codes.bits, elements),
            self.codes.bytes.len(),
        )?;
        self.groups.check(shape)?;
        let count = self.groups.count(shape);
        self.scales.check(count)?;
        if let Some(zeros) = &self.zeros {
            check_length("zero points", count, zeros.len())?;
        }
        let doubtful = self.may_overflow(count)?;
        let weight = GroupedWeight {
            shape,
            small: self.map.small(self.codes.bits),
            codes: self.codes,
            map: self.map,
            groups: self.groups,
            scales: self.scales,
            zeros: self.zeros,
            factor: self.factor,
            rounding: self.rounding,
            format,
        };
        if doubtful {
            check_finite(&weight)?;
        }
        Ok(weight)
    }

    /// Whether a code could stand for a weight that is infinite.
    ///
    /// # Errors
    /// If a scale is not finite.
    fn may_overflow(&self, count: usize) -> Result<bool, WeightError> {
        let limit = match self.rounding {
            FloatFormat::F16 => 65_504.0,
            // Nothing that is smaller is rounded to infinity.
            FloatFormat::Bf16 => 3.38e38,
            FloatFormat::F32 => f64::from(f32::MAX),
        };
        let factor = f64::from(self.factor.unwrap_or(1.0)).abs().max(1.0);
        let largest = f64::from(self.map.largest(self.codes.bits));
        let added = matches!(self.zeros, Some(Zeros::Offsets(_)));
        let (mut scales, mut zeros, mut doubtful) = ([0.0f32; CHUNK], [0.0f32; CHUNK], false);
        for start in (0..count).step_by(CHUNK) {
            let length = CHUNK.min(count - start);
            let scales = &mut scales[..length];
            self.scales.read(start, scales);
            if let Some(values) = &self.zeros {
                values.read(start, &mut zeros[..length]);
            }
            for (scale, zero) in scales.iter().zip(&zeros) {
                if !scale.is_finite() {
                    return Err(WeightError::NotFinite("scales"));
                }
                let (zero, scale) = (f64::from(zero.abs()), f64::from(scale.abs()) * factor);
                let reach = largest + if added { 0.0 } else { zero };
                let weight = reach * scale + if added { zero } else { 0.0 };
                doubtful |= reach > limit || weight > limit;
            }
        }
        Ok(doubtful)
    }
}
