//! A linear layer on a packed weight, with adapters on its input.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use qoft_kernels::ops::InputQuantizer;
use qoft_kernels::{Matrix, PackedWeight};

use crate::adapter::OftAdapter;
use crate::adapters::Adapters;
use crate::backend::LoadedLinear;
use crate::error::Result;
use crate::frozen::Frozen;
use crate::layer::{InputObserver, Layer, LayerKind};
use crate::ops;

/// `y = quantize(x · R₁ · R₂ …) · Wᵀ + bias`: the weight stays packed and frozen, only the
/// rotations train. Without adapters this is a plain frozen layer.
#[derive(Module, Debug)]
pub struct Linear {
    #[module(skip)]
    weight: Frozen,
    #[module(skip)]
    bias: Option<Tensor<1>>,
    #[module(skip)]
    input_quantizer: Option<Arc<dyn InputQuantizer>>,
    /// Whether the weight is another layer's, which counts it.
    #[module(skip)]
    tied: bool,
    #[module(skip)]
    observer: Option<Arc<dyn InputObserver>>,
    adapters: Adapters,
}

impl Linear {
    /// A frozen layer on `device`.
    pub fn new(loaded: LoadedLinear, device: &Device) -> Self {
        let bias = loaded
            .bias
            .map(|bias| Tensor::from_data(bias.as_slice(), device));
        Self {
            weight: Frozen::new(loaded.weight),
            bias,
            input_quantizer: loaded.input_quantizer,
            tied: false,
            observer: None,
            adapters: Adapters::default(),
        }
    }

    /// Says that the weight is another layer's too, so that it is not counted twice.
    #[must_use]
    pub fn tied(self) -> Self {
        Self { tied: true, ..self }
    }

    /// The layer on `x` of `[.., in_features]`, of any rank from 1 on.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let y = ops::packed_matmul(self.matmul_input(x), self.weight.get());
        let y = match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        };
        dims[D - 1] = self.out_features();
        y.reshape(dims)
    }

    /// What the weight is multiplied with: `x` after rotations and input quantization, as rows.
    pub fn matmul_input<const D: usize>(&self, x: Tensor<D>) -> Tensor<2> {
        let x = self.rows(x);
        if let Some(observer) = &self.observer {
            observer.observe(&x);
        }
        let active = self.adapters.active();
        let x = active.fold(x, |x, slot| slot.adapter().forward(x));
        match &self.input_quantizer {
            Some(quantizer) => ops::straight_through(x, quantizer),
            None => x,
        }
    }

    /// `x` as rows. What has rows already stays the same node of its graph, so that operations
    /// see where it comes from.
    fn rows<const D: usize>(&self, x: Tensor<D>) -> Tensor<2> {
        if D == 2 {
            return Tensor::from_dispatch(x.into_dispatch());
        }
        let rows = x.dims().iter().product::<usize>() / self.in_features();
        x.reshape([rows, self.in_features()])
    }

    /// Features of the input.
    pub fn in_features(&self) -> usize {
        self.weight.get().shape()[1]
    }

    /// Features of the output.
    pub fn out_features(&self) -> usize {
        self.weight.get().shape()[0]
    }

    /// The packed weight.
    pub fn weight(&self) -> &Arc<dyn PackedWeight> {
        self.weight.get()
    }

    /// `[out_features]`.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_ref()
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

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        Matrix::decode(&**self.weight.get())
    }

    fn base_parameters(&self) -> usize {
        let weight = self.in_features() * self.out_features();
        let bias = self.bias.as_ref().map_or(0, |_| self.out_features());
        if self.tied { bias } else { weight + bias }
    }

    fn merge(&mut self) -> Result<()> {
        self.weight.merge(LayerKind::Linear, &mut self.adapters)
    }

    fn unmerge(&mut self) -> Result<()> {
        self.weight.unmerge(LayerKind::Linear, &mut self.adapters)
    }

    fn observe_inputs(&mut self, observer: Option<Arc<dyn InputObserver>>) {
        self.observer = observer;
    }
}
