//! Norms: of the root mean square, and of mean and variance.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_kernels::Matrix;

use crate::adapter::{Adapters, BIAS, LayerTensor, WEIGHT};
use crate::frozen::Mergeable;
use crate::lanes;
use crate::layer::Layer;
use crate::ops::{self, Traced};
use crate::still::Still;
use qoft_scheme::LayerKind;

/// A norm of the last dimension: `x / √(mean(x²) + eps) · weight`, or
/// `(x − mean(x)) / √(variance(x) + eps) · weight + bias`, perhaps without a bias. It stays frozen, unless an adapter has
/// values of its own; rotations are for other layers.
///
/// With a unit offset the factor is `1 + weight`: files, adapters and [`Self::weight`] have the
/// difference from 1.
#[derive(Module, Debug)]
pub struct Norm {
    weight: Still<Tensor<1>>,
    bias: Option<Still<Tensor<1>>>,
    /// Whether the mean is taken away.
    #[module(skip)]
    centred: bool,
    #[module(skip)]
    eps: f32,
    #[module(skip)]
    unit_offset: bool,
    adapters: Adapters,
}

impl Norm {
    /// A norm of the root mean square, with a weight of `[width]`; `eps` is added to the mean
    /// square.
    pub fn root_mean_square(weight: Tensor<1>, eps: f32) -> Self {
        Self::new(weight, None, false, eps)
    }

    /// torch's `LayerNorm`, with a weight of `[width]` and perhaps a bias; `eps` is added to the variance.
    pub fn layer(weight: Tensor<1>, bias: Option<Tensor<1>>, eps: f32) -> Self {
        Self::new(weight, bias, true, eps)
    }

    fn new(weight: Tensor<1>, bias: Option<Tensor<1>>, centred: bool, eps: f32) -> Self {
        Self {
            weight: Still::new(weight.inner()),
            bias: bias.map(|bias| Still::new(bias.inner())),
            centred,
            eps,
            unit_offset: false,
            adapters: Adapters::default(),
        }
    }

    /// The same with factors that are 1 and the weight, or without.
    #[must_use]
    pub fn with_unit_offset(self, unit_offset: bool) -> Self {
        Self {
            unit_offset,
            ..self
        }
    }

    /// `x` of `[.., width]`, normalized.
    pub fn forward<const D: usize>(&self, x: impl Into<Traced<D>>) -> Traced<D> {
        let x = self.adapters.keep(x);
        if self.adapters.has_lanes() {
            let shape = x.dims();
            let width = shape[D - 1];
            let rows = x.reshape([shape.iter().product::<usize>() / width, width]);
            let y = lanes::each(rows.into_tensor(), |x| self.forward(x).into_tensor());
            return y.reshape(shape).into();
        }
        let weight = match self.adapters.computing_weight() {
            Some(own) => own.value().reshape(self.weight.dims()),
            None => Tensor::clone(&self.weight),
        };
        let weight = if self.unit_offset {
            weight + 1.0
        } else {
            weight
        };
        if !self.centred {
            return ops::rms_norm(x, weight, self.eps);
        }
        let y = ops::layer_norm(x, weight, self.eps);
        match &self.bias {
            None => y.into(),
            Some(bias) => {
                let (y, bias) = ops::lifted(y, self.adapters.bias(bias));
                (y + bias.unsqueeze()).into()
            }
        }
    }

    /// `[width]`, as it is without an adapter that has its own.
    pub fn weight(&self) -> &Tensor<1> {
        &self.weight
    }

    /// `[width]`, as it is without adapters that have their own.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_deref()
    }
}

impl Layer for Norm {
    fn kind(&self) -> LayerKind {
        LayerKind::Norm
    }

    fn in_features(&self) -> usize {
        self.weight.dims()[0]
    }

    fn out_features(&self) -> usize {
        1
    }

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        Matrix::new(self.values(WEIGHT), [1, self.in_features()])
    }

    fn base_parameters(&self) -> usize {
        let tensors = 1 + self.bias.iter().count();
        tensors * self.in_features()
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| LayerTensor::dense(BIAS, bias.dims()));
        let weight = LayerTensor::dense(WEIGHT, self.weight.dims());
        [weight].into_iter().chain(bias).collect()
    }

    fn values(&self, tensor: &str) -> Vec<f32> {
        let tensor = match &self.bias {
            Some(bias) if tensor == BIAS => bias,
            _ => &self.weight,
        };
        tensor.to_data().iter::<f32>().collect()
    }

    fn mergeable(&self) -> Option<&dyn Mergeable> {
        None
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable> {
        None
    }
}
