//! Finding scale and zero point of a group without calibration data.

use qoft_kernels::{FloatFormat, whole};

/// How many ranges are tried for a group.
const RANGES: usize = 24;
/// The smallest range, as a share of the one that holds all weights.
const NARROWEST: f32 = 0.4;
/// Rounds of adjusting a scale and a zero point to the codes that they lead to.
const ADJUSTMENTS: usize = 3;
/// Sums are kept in so many parts, so that loops become vector instructions.
const LANES: usize = 8;

/// What the groups of a grid have in common.
pub(super) struct Fit {
    pub largest: f32,
    pub symmetric: bool,
    pub format: FloatFormat,
}

/// A scale and a zero point, with the sum of the squared errors.
#[derive(Clone, Copy)]
pub(super) struct FittedGroup {
    pub scale: f32,
    pub zero: f32,
    pub error: f32,
}

impl Fit {
    /// The best scale and zero point for a group that has others now.
    #[inline(always)]
    pub fn group(&self, values: &[f32], scale: f32, zero: u8) -> FittedGroup {
        let middle = (self.largest + 1.0) / 2.0;
        let zero = if self.symmetric {
            middle
        } else {
            f32::from(zero)
        };
        if self.holds(values, scale, zero) {
            let error = 0.0;
            return FittedGroup { scale, zero, error };
        }
        let mut best = self.measured(values, scale, zero);
        let low = values.iter().fold(0.0f32, |low, v| low.min(*v));
        let high = values.iter().fold(0.0f32, |high, v| high.max(*v));
        let (range, zero, widest) = if self.symmetric {
            // There is one code less above the middle than below. The widest range cuts nothing
            // off on either side.
            let widest = self.largest / (self.largest - 1.0);
            (2.0 * high.max(-low), middle, widest)
        } else {
            let zero = -low / (high - low) * self.largest;
            (high - low, zero.round_ties_even(), 1.0)
        };
        if best.error == 0.0 || range == 0.0 {
            return best;
        }
        let step = (widest - NARROWEST) / (RANGES - 1) as f32;
        let shares = (0..RANGES).map(|i| widest - step * i as f32);
        for share in std::iter::once(1.0).chain(shares) {
            self.challenge(&mut best, values, range * share / self.largest, zero);
        }
        for _ in 0..ADJUSTMENTS {
            let before = best;
            let scale = self.least_squares(values, before);
            self.challenge(&mut best, values, scale, before.zero);
            if !self.symmetric {
                let FittedGroup { scale, zero, .. } = best;
                for zero in [zero - 1.0, zero + 1.0] {
                    if (0.0..=self.largest).contains(&zero) {
                        self.challenge(&mut best, values, scale, zero);
                    }
                }
            }
            if best.error == before.error {
                break;
            }
        }
        best
    }

    /// Whether all values are numbers of a scale and a zero point, rounded as readers round them.
    #[inline(always)]
    fn holds(&self, values: &[f32], scale: f32, zero: f32) -> bool {
        let steps = Steps::new(self.largest, scale, zero);
        let number = |value| {
            let mut number = [steps.of(value) * scale];
            self.format.round(&mut number);
            number[0]
        };
        scale != 0.0 && values.iter().all(|&value| number(value) == value)
    }

    /// Takes another scale and zero point if they are better.
    #[inline(always)]
    fn challenge(&self, best: &mut FittedGroup, values: &[f32], scale: f32, zero: f32) {
        let mut scale = [scale];
        self.format.round(&mut scale);
        let found = self.measured(values, scale[0], zero);
        // False for scales that are 0 or infinite after rounding.
        if found.error < best.error {
            *best = found;
        }
    }

    #[inline(always)]
    fn measured(&self, values: &[f32], scale: f32, zero: f32) -> FittedGroup {
        let mut sums = [0.0; LANES];
        let steps = Steps::new(self.largest, scale, zero);
        let error = |value| {
            let error: f32 = value - steps.of(value) * scale;
            error * error
        };
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, &value) in sums.iter_mut().zip(chunk) {
                *sum += error(value);
            }
        }
        let error = sums.iter().sum::<f32>() + rest.iter().copied().map(error).sum::<f32>();
        let usable = scale != 0.0 && scale.is_finite();
        FittedGroup {
            scale,
            zero,
            error: if usable { error } else { f32::INFINITY },
        }
    }

    /// The scale that fits best to the codes that another one leads to.
    #[inline(always)]
    fn least_squares(&self, values: &[f32], found: FittedGroup) -> f32 {
        let steps = Steps::new(self.largest, found.scale, found.zero);
        let (mut product, mut square) = (0.0f32, 0.0f32);
        for &value in values {
            let steps = steps.of(value);
            product += value * steps;
            square += steps * steps;
        }
        product / square
    }
}

/// Rounds values to whole steps from the zero point, as far as there are codes.
struct Steps {
    inverse: f32,
    low: f32,
    high: f32,
}

impl Steps {
    fn new(largest: f32, scale: f32, zero: f32) -> Self {
        Self {
            inverse: scale.recip(),
            low: -zero,
            high: largest - zero,
        }
    }

    #[inline(always)]
    fn of(&self, value: f32) -> f32 {
        whole((value * self.inverse).max(self.low).min(self.high))
    }
}
