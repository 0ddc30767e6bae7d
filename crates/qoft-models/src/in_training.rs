//! What a pass of training has beside its tokens.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use qoft_core::{Draw, Random, ops};

/// Tells these numbers from others that are drawn at the same place of a run.
const NOISE: u64 = 0x6e65_6674_756e_6521;

/// What a pass of training has beside its tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct InTraining {
    /// See [`Span::counted`](crate::Span::counted).
    pub counted: Option<Arc<Vec<bool>>>,
    /// Noise on the embeddings.
    pub noise: Option<Noise>,
}

/// Noise on the embeddings (NEFTune, arXiv 2310.05914).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Noise {
    /// How much: numbers are up to `alpha / sqrt(time · hidden)`.
    pub alpha: f64,
    /// Where in the run it is: the same place has the same noise.
    pub draw: Draw,
}

impl Noise {
    /// Values for a tensor of this shape, the last two dimensions of which are time and hidden size.
    fn values(self, shape: [usize; 3]) -> Vec<f32> {
        let [batch, time, hidden] = shape;
        let largest = self.alpha / ((time * hidden).max(1) as f64).sqrt();
        let Draw {
            seed,
            step,
            batch: part,
            ..
        } = self.draw;
        let mut random = Random::keyed(&[seed, step, part, NOISE]);
        let values = (0..batch * time * hidden).map(|_| random.between(-largest, largest) as f32);
        values.collect()
    }
}

/// Embeddings `[batch, time, hidden]` with noise.
pub(crate) fn with_noise(hidden: Tensor<3>, noise: Option<Noise>) -> Tensor<3> {
    let Some(noise) = noise else {
        return hidden;
    };
    let shape = hidden.dims();
    let values = TensorData::new(noise.values(shape), shape);
    let device = hidden.device().without_autodiff();
    let (hidden, noise) = ops::lifted(hidden, Tensor::<3>::from_data(values, &device));
    hidden + noise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_that_of_its_place_and_within_its_bounds() {
        let noise = |step| Noise {
            alpha: 5.0,
            draw: Draw::new(1, step, 0),
        };
        let values = noise(3).values([2, 10, 40]);
        assert_eq!(values.len(), 800);
        assert_eq!(noise(3).values([2, 10, 40]), values);
        assert_ne!(noise(4).values([2, 10, 40]), values);
        // Of a uniform distribution the mean is 0 and the variance a third of the square of the bound.
        let largest = 5.0 / 400f32.sqrt();
        assert!(values.iter().all(|v| v.abs() <= largest));
        let mean = values.iter().sum::<f32>() / 800.0;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 800.0;
        assert!(mean.abs() < 0.1 * largest, "{mean}");
        assert!(
            (variance / (largest * largest) - 1.0 / 3.0).abs() < 0.05,
            "{variance}"
        );
    }
}
