//! A linear layer on a packed weight, with adapters on its input.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use qoft_kernels::ops::InputQuantizer;
use qoft_kernels::{ComputeDtype, Matrix, PackedWeight};

use crate::adapter::{Adapters, BIAS, LayerTensor, OftAdapter, WEIGHT};
use crate::frozen::{Frozen, Mergeable};
use crate::lanes;
use crate::layer::{InputObserver, Layer};
use crate::ops::{self, Traced};
use crate::still::Still;
use qoft_scheme::{LayerKind, LoadedLinear, Result};

/// `y = out(quantize(x · R₁ · R₂ …) · Wᵀ) + bias`: the weight stays packed and frozen, only the
/// rotations and output sides of adapters train, unless an adapter has a weight or bias of its
/// own. Without adapters this is a plain frozen layer.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Still<Frozen<Arc<dyn PackedWeight>>>,
    bias: Option<Still<Tensor<1>>>,
    #[module(skip)]
    input_quantizer: Option<Arc<dyn InputQuantizer>>,
    /// Whether the weight is another layer's, which counts it.
    #[module(skip)]
    tied: bool,
    /// Whether files have a dense weight as `[in_features, out_features]`.
    #[module(skip)]
    fan_in_fan_out: bool,
    /// Whether its products are computed in f32 whatever those of others are.
    #[module(skip)]
    exact: bool,
    /// The parameter that it is in PEFT's model, where it is no module there.
    #[module(skip)]
    parameter: Option<Arc<str>>,
    #[module(skip)]
    observer: Option<Arc<dyn InputObserver>>,
    adapters: Adapters,
}

impl Linear {
    /// A frozen layer on `device`.
    pub fn new(loaded: LoadedLinear, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let bias = loaded
            .bias
            .map(|bias| Still::new(Tensor::from_data(bias.as_slice(), &device)));
        Self {
            weight: Still::new(Frozen::new(loaded.weight)),
            bias,
            input_quantizer: loaded.input_quantizer,
            tied: false,
            fan_in_fan_out: false,
            exact: false,
            parameter: None,
            observer: None,
            adapters: Adapters::default(),
        }
    }

    /// Says that the weight is another layer's too, so that it is not counted twice.
    #[must_use]
    pub fn tied(self) -> Self {
        Self { tied: true, ..self }
    }

    /// Says that files have a dense weight as `[in_features, out_features]`, the other way round
    /// than usual: an adapter's own weight among them.
    #[must_use]
    pub fn fan_in_fan_out(self) -> Self {
        Self {
            fan_in_fan_out: true,
            ..self
        }
    }

    /// Says that products stay in f32, see [`Layer::set_compute_dtype`]: for a layer of whose outputs the larger
    /// ones are chosen, which may hang on their last digits.
    #[must_use]
    pub fn exact(self) -> Self {
        Self {
            exact: true,
            ..self
        }
    }

    /// Says that transformers has no such module: its weight is a parameter of this name there, or a part
    /// of one, see [`Layer::parameter`].
    #[must_use]
    pub fn of_parameter(self, name: impl Into<Arc<str>>) -> Self {
        Self {
            parameter: Some(name.into()),
            ..self
        }
    }

    /// The layer on `x` of `[.., in_features]`, of any rank from 1 on.
    pub fn forward<const D: usize>(&self, x: impl Into<Traced<D>>) -> Tensor<D> {
        let x = x.into();
        let mut dims = x.dims();
        let lanes = self.adapters.has_lanes();
        let y = if lanes && self.adapters.has_own_weight() {
            lanes::each(self.rows(x).into_tensor(), |x| {
                self.changed(self.product(x))
            })
        } else {
            let y = self.product(x);
            match lanes {
                true => lanes::each(y, |y| self.changed(y)),
                false => self.changed(y),
            }
        };
        if D == 2 {
            return Tensor::from_dispatch(y.into_dispatch());
        }
        dims[D - 1] = self.out_features();
        y.reshape(dims)
    }

    /// The product with the weight.
    fn product<const D: usize>(&self, x: impl Into<Traced<D>>) -> Tensor<2> {
        let x = self.matmul_input(x);
        match self.adapters.own_weight() {
            Some(own) => ops::dense_matmul(x, own.value()),
            None => ops::packed_matmul(x.into_tensor(), self.weight.get()),
        }
    }

    /// A product with what is done to it.
    fn changed(&self, y: Tensor<2>) -> Tensor<2> {
        self.with_bias(self.adapters.change_output(y))
    }

    /// Several layers on the same `x` of `[rows, in_features]`; the products of a single row are made at
    /// once.
    pub fn forward_each<const N: usize>(
        layers: [&Self; N],
        x: impl Into<Traced<2>>,
    ) -> [Tensor<2>; N] {
        let x = x.into();
        let own = |layer: &&Self| layer.adapters.own_weight().is_some();
        if x.dims()[0] != 1 || layers.iter().any(own) {
            return layers.map(|layer| layer.forward(x.clone()));
        }
        let inputs = layers.map(|layer| layer.matmul_input(x.clone()).into_tensor());
        let products = ops::packed_matmul_each(inputs, layers.map(Self::weight));
        let mut layers = layers.into_iter();
        products.map(|y| match layers.next() {
            Some(layer) => layer.changed(y),
            None => y,
        })
    }

    /// Whether all that the layer does is the product of its input, as it is, with the packed weight, and
    /// adding a bias.
    pub fn only_multiplies(&self) -> bool {
        self.observer.is_none()
            && self.input_quantizer.is_none()
            && !self.adapters.has_lanes()
            && self.adapters.rotations().next().is_none()
            && self.adapters.own_weight().is_none()
    }

    fn with_bias(&self, y: Tensor<2>) -> Tensor<2> {
        match self.computing_bias() {
            Some(bias) => {
                let (y, bias) = ops::lifted(y, bias);
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    /// The bias that the layer adds, `[out_features]`: its own, or those that adapters have.
    pub fn computing_bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(|bias| self.adapters.bias(bias))
    }

    /// What the weight is multiplied with: `x` after rotations and input quantization, as rows.
    pub fn matmul_input<const D: usize>(&self, x: impl Into<Traced<D>>) -> Traced<2> {
        let x = self.rows(x);
        if let Some(observer) = &self.observer {
            observer.observe(&x);
        }
        let x = self.adapters.turn_input(x);
        match &self.input_quantizer {
            Some(quantizer) => {
                let x = ops::straight_through(x.into_tensor(), quantizer);
                self.adapters.keep(x)
            }
            None => x,
        }
    }

    fn rows<const D: usize>(&self, x: impl Into<Traced<D>>) -> Traced<2> {
        let x = x.into();
        let rows = x.dims().iter().product::<usize>() / self.in_features();
        x.reshape([rows, self.in_features()])
    }

    /// A tensor of the model that an operation beside the layer reads, such as the one that makes its
    /// input: graphs keep it as they keep what the layer reads, see [`Adapters::keep`].
    pub fn keep<const D: usize>(&self, x: impl Into<Traced<D>>) -> Traced<D> {
        self.adapters.keep(x)
    }

    /// Features of the input.
    pub fn in_features(&self) -> usize {
        self.weight.get().shape()[1]
    }

    /// Features of the output.
    pub fn out_features(&self) -> usize {
        self.weight.get().shape()[0]
    }

    /// The packed weight, as it is without an adapter that has its own.
    pub fn weight(&self) -> &Arc<dyn PackedWeight> {
        self.weight.get()
    }

    /// `[out_features]`, as it is without adapters that have their own.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_deref()
    }

    /// Adds an adapter after those that are active.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn push_adapter(
        &mut self,
        name: impl Into<String>,
        adapter: impl OftAdapter,
    ) -> Result<()> {
        self.adapters.push(name, adapter)
    }
}

impl Layer for Linear {
    fn kind(&self) -> LayerKind {
        LayerKind::Linear
    }

    fn in_features(&self) -> usize {
        self.in_features()
    }

    fn out_features(&self) -> usize {
        self.out_features()
    }

    fn parameter(&self) -> Option<&str> {
        self.parameter.as_deref()
    }

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        self.weight.rows()
    }

    fn base_parameters(&self) -> usize {
        let weight = self.in_features() * self.out_features();
        let bias = self.bias.as_ref().map_or(0, |_| self.out_features());
        if self.tied { bias } else { weight + bias }
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        let weight = LayerTensor {
            dense: self.weight.get().info().dense.is_some(),
            ..LayerTensor::dense(WEIGHT, self.weight.get().shape())
        };
        let weight = match self.fan_in_fan_out {
            true => weight.fan_in_fan_out(),
            false => weight,
        };
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| LayerTensor::dense(BIAS, bias.dims()));
        [weight].into_iter().chain(bias).collect()
    }

    fn values(&self, tensor: &str) -> Vec<f32> {
        match &self.bias {
            Some(bias) if tensor == BIAS => bias.to_data().iter::<f32>().collect(),
            _ => self.base_weight().values,
        }
    }

    fn is_tied(&self) -> bool {
        self.tied
    }

    fn mergeable(&self) -> Option<&dyn Mergeable> {
        Some(&*self.weight)
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable> {
        Some(&mut *self.weight)
    }

    fn set_compute_dtype(&mut self, dtype: ComputeDtype) {
        if !self.exact {
            self.weight.set_compute_dtype(dtype);
        }
    }

    fn observe_inputs(&mut self, observer: Option<Arc<dyn InputObserver>>) {
        self.observer = observer;
    }
}
