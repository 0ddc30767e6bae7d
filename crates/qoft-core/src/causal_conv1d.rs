//! A causal convolution along the sequence, of each channel by itself.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_kernels::Matrix;
use qoft_kernels::ops::CausalConvolution;

use crate::adapter::{Adapters, BIAS, LayerTensor, OwnTensor, WEIGHT};
use crate::frozen::Mergeable;
use crate::layer::Layer;
use crate::ops::{self, Traced};
use crate::still::Still;
use qoft_scheme::LayerKind;

/// torch's `Conv1d` with as many groups as channels, padded on the left only. It stays frozen, unless an
/// adapter has values of its own; rotations are for other layers.
#[derive(Module, Debug)]
pub struct CausalConv1d {
    weight: Still<Tensor<2>>,
    bias: Option<Still<Tensor<1>>>,
    adapters: Adapters,
}

impl CausalConv1d {
    /// A convolution with weights of `[channels, width]`, the last of which meets the token itself, and a
    /// bias of `[channels]`.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Still::new(weight.inner()),
            bias: bias.map(|bias| Still::new(bias.inner())),
            adapters: Adapters::default(),
        }
    }

    /// The convolution of `x`, `[batch, time, channels]`; there is nothing before the first token.
    pub fn forward(&self, x: impl Into<Traced<3>>) -> Tensor<3> {
        let x = self.adapters.keep(x);
        let own = self.adapters.computing_weight();
        let weight = match own {
            Some(own) => own.value().reshape(self.weight.dims()),
            None => Tensor::clone(&self.weight),
        };
        let op = CausalConvolution::new(own.is_some_and(OwnTensor::trains));
        let y = ops::causal_convolution(x, weight, op);
        match &self.bias {
            Some(bias) => {
                let (y, bias) = ops::lifted(y, self.adapters.bias(bias));
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    /// How many tokens each output sees, itself included.
    pub fn width(&self) -> usize {
        self.weight.dims()[1]
    }

    fn channels(&self) -> usize {
        self.weight.dims()[0]
    }
}

impl Layer for CausalConv1d {
    fn kind(&self) -> LayerKind {
        LayerKind::Conv1d
    }

    fn in_features(&self) -> usize {
        self.width()
    }

    fn out_features(&self) -> usize {
        self.channels()
    }

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        Matrix::new(self.values(WEIGHT), self.weight.dims())
    }

    fn base_parameters(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |_| self.channels());
        self.channels() * self.width() + bias
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| LayerTensor::dense(BIAS, bias.dims()));
        let weight = LayerTensor::dense(WEIGHT, [self.channels(), 1, self.width()]);
        [weight].into_iter().chain(bias).collect()
    }

    fn values(&self, tensor: &str) -> Vec<f32> {
        match &self.bias {
            Some(bias) if tensor == BIAS => bias.to_data().iter::<f32>().collect(),
            _ => self.weight.to_data().iter::<f32>().collect(),
        }
    }

    fn mergeable(&self) -> Option<&dyn Mergeable> {
        None
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable> {
        None
    }
}
