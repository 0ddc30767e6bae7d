//! The last inputs of a convolution, of one layer.

use burn::tensor::Tensor;
use qoft_core::CausalConv1d;

/// What a convolution sees before new tokens.
#[derive(Debug, Clone, Default)]
pub struct LastInputs(Option<Tensor<3>>);

impl LastInputs {
    /// The convolution at new tokens, whose inputs are `x` of `[batch, time, channels]`; these are kept for
    /// the tokens after them.
    pub fn convolve(&mut self, convolution: &CausalConv1d, x: Tensor<3>) -> Tensor<3> {
        let time = x.dims()[1];
        let x = match self.0.take() {
            Some(before) => Tensor::cat(vec![before, x], 1),
            None => x,
        };
        let all = x.dims()[1];
        let kept = all.min(convolution.width() - 1);
        self.0 = (kept > 0).then(|| x.clone().narrow(1, all - kept, kept));
        convolution.forward(x).narrow(1, all - time, time)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn tokens_see_what_came_before_them() {
        let device = Device::flex();
        for width in [1, 2, 4] {
            let weights: Vec<f32> = (0..3 * width).map(|i| i as f32 - 4.0).collect();
            let weights = Tensor::<1>::from_data(weights.as_slice(), &device);
            let convolution = CausalConv1d::new(weights.reshape([3, width]), None);
            let values: Vec<f32> = (0..2 * 11 * 3).map(|i| ((i * 7) % 10) as f32).collect();
            let x = Tensor::<1>::from_data(values.as_slice(), &device).reshape([2, 11, 3]);
            let whole = convolution.forward(x.clone());
            let (mut kept, mut at) = (LastInputs::default(), 0);
            for time in [1, 1, 5, 1, 3] {
                let part = kept.convolve(&convolution, x.clone().narrow(1, at, time));
                let expected = whole.clone().narrow(1, at, time);
                assert_eq!(part.into_data(), expected.into_data(), "{width}");
                at += time;
            }
        }
    }
}
