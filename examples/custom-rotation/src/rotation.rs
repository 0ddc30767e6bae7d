//! Products of Givens rotations.

use qoft_core::burn::tensor::{Device, Int, Tensor};
use qoft_core::ops::{Traced, lifted};
use qoft_core::{AdapterParam, Composition, OftAdapter, Pass};

/// `x · G₁ · G₂ … G_n`, in rounds whose rotations have no feature in common.
///
/// In the round of distance `h` = 1, 2, 4, … the features `i` = 0, 2h, 4h, … are rotated with `j = i + h`, if
/// there is one: `(xᵢ, xⱼ)` becomes `(xᵢ cos θⱼ + xⱼ sin θⱼ, xⱼ cos θⱼ − xᵢ sin θⱼ)`. So each feature but the
/// first is the partner `j` of exactly one rotation, and these are `d − 1` in `⌈log₂ d⌉` rounds.
#[derive(Debug, Clone)]
pub struct GivensRotation {
    /// θ₁ … θ_(d−1)
    angles: AdapterParam,
    strength: f64,
}

impl GivensRotation {
    /// Name of the angles below a layer.
    pub const ANGLES: &'static str = "goft_angles";

    /// Rotations by so many times the angles, `[features − 1]`.
    pub fn new(angles: AdapterParam, strength: f64) -> Self {
        Self { angles, strength }
    }

    /// The rounds, in the order in which the input meets them.
    fn rounds(&self) -> impl DoubleEndedIterator<Item = Round> + use<> {
        let features = self.angles.len() + 1;
        let count = features.next_power_of_two().ilog2();
        (0..count).map(move |number| Round::new(features, 1 << number))
    }

    /// An angle for each feature: 0 for the first.
    fn padded(&self) -> Tensor<1> {
        let angles = self.angles.tensor::<1>() * self.strength;
        let zero = Tensor::zeros([1], &angles.device());
        Tensor::cat(vec![zero, angles], 0)
    }

    fn turn(rows: Tensor<2>, angles: Tensor<1>, rounds: impl Iterator<Item = Round>) -> Tensor<2> {
        let (rows, angles) = lifted(rows, angles);
        rounds.fold(rows, |rows, round| round.turn(rows, angles.clone()))
    }
}

impl OftAdapter for GivensRotation {
    fn forward(&self, x: Traced<2>, _: Pass) -> Tensor<2> {
        Self::turn(x.into_tensor(), self.padded(), self.rounds())
    }

    /// The transpose: back by each angle, the last round first.
    fn rotate_weight(&self, weight: Tensor<2>, _: Pass) -> Tensor<2> {
        Self::turn(weight, -self.padded(), self.rounds().rev())
    }

    /// As in PEFT's OFT, to which the paper compares: `x · R_first · R_second`.
    fn composition(&self) -> Composition {
        Composition::NextToWeight
    }

    fn params(&self) -> Vec<&AdapterParam> {
        vec![&self.angles]
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        vec![&mut self.angles]
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(self.clone())
    }
}

/// Rotations of pairs that have no feature in common, by feature.
struct Round {
    /// The other feature of the pair.
    partner: Vec<i32>,
    /// The feature that the angle of the pair belongs to; 0 outside of pairs.
    angle: Vec<i32>,
    /// The sign of the sine.
    sign: Vec<f32>,
}

impl Round {
    fn new(features: usize, distance: usize) -> Self {
        let feature = |at: usize| {
            let (before, after) = (at.wrapping_sub(distance), at + distance);
            match at / distance {
                _ if !at.is_multiple_of(distance) => (at, 0, 0.0),
                pair if pair % 2 == 1 => (before, at, -1.0),
                _ if after < features => (after, after, 1.0),
                _ => (at, 0, 0.0),
            }
        };
        let all: Vec<_> = (0..features).map(feature).collect();
        Self {
            partner: all.iter().map(|&(partner, ..)| partner as i32).collect(),
            angle: all.iter().map(|&(_, angle, _)| angle as i32).collect(),
            sign: all.iter().map(|&(.., sign)| sign).collect(),
        }
    }

    /// Rotates the pairs of each row, `[rows, features]`.
    fn turn(&self, rows: Tensor<2>, angles: Tensor<1>) -> Tensor<2> {
        let device = rows.device();
        let angles = angles.select(0, indices(&self.angle, &device));
        let sign = Tensor::<1>::from_data(self.sign.as_slice(), &device);
        let partners = rows.clone().select(1, indices(&self.partner, &device));
        let (cos, sin) = (angles.clone().cos(), angles.sin() * sign);
        rows * cos.unsqueeze() + partners * sin.unsqueeze()
    }
}

fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(values, &device.clone().without_autodiff())
}
