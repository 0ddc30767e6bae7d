//! A linear layer on a packed weight, with adapters on its input.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use qoft_kernels::PackedWeight;
use qoft_kernels::ops::InputQuantizer;

use crate::adapter::{AdapterSlot, OftAdapter};
use crate::backend::LoadedLinear;
use crate::ops;

/// `y = quantize(x · R₁ · R₂ …) · Wᵀ + bias`: the weight stays packed and frozen, only the
/// rotations train. Without adapters this is a plain frozen layer.
#[derive(Module, Debug)]
pub struct Linear {
    #[module(skip)]
    weight: Arc<dyn PackedWeight>,
    #[module(skip)]
    bias: Option<Tensor<1>>,
    #[module(skip)]
    input_quantizer: Option<Arc<dyn InputQuantizer>>,
    adapters: Vec<AdapterSlot>,
}

impl Linear {
    /// A frozen layer on `device`.
    pub fn new(loaded: LoadedLinear, device: &Device) -> Self {
        let bias = loaded
            .bias
            .map(|bias| Tensor::from_data(bias.as_slice(), device));
        Self {
            weight: loaded.weight,
            bias,
            input_quantizer: loaded.input_quantizer,
            adapters: Vec::new(),
        }
    }

    /// The layer on `x` of `[.., in_features]`, of any rank from 1 on.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let y = ops::packed_matmul(self.matmul_input(x), &self.weight);
        let y = match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        };
        dims[D - 1] = self.out_features();
        y.reshape(dims)
    }

    /// What the weight is multiplied with: `x` after rotations and input quantization, as rows.
    pub fn matmul_input<const D: usize>(&self, x: Tensor<D>) -> Tensor<2> {
        let rows = x.dims().iter().product::<usize>() / self.in_features();
        let x = x.reshape([rows, self.in_features()]);
        let x = self
            .adapters
            .iter()
            .fold(x, |x, slot| slot.adapter().forward(x));
        match &self.input_quantizer {
            Some(quantizer) => ops::straight_through(x, quantizer),
            None => x,
        }
    }

    /// Features of the input.
    pub fn in_features(&self) -> usize {
        self.weight.shape()[1]
    }

    /// Features of the output.
    pub fn out_features(&self) -> usize {
        self.weight.shape()[0]
    }

    /// The packed weight.
    pub fn weight(&self) -> &Arc<dyn PackedWeight> {
        &self.weight
    }

    /// `[out_features]`.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_ref()
    }

    /// Parameters of the frozen layer, counted as if it were not packed.
    pub fn base_parameters(&self) -> usize {
        let bias = if self.bias.is_some() {
            self.out_features()
        } else {
            0
        };
        self.in_features() * self.out_features() + bias
    }

    /// The adapters, in the order in which they are applied to the input.
    pub fn adapters(&self) -> &[AdapterSlot] {
        &self.adapters
    }

    /// As [`Self::adapters`], to change them.
    pub fn adapters_mut(&mut self) -> &mut [AdapterSlot] {
        &mut self.adapters
    }

    /// Adds an adapter after those that are there.
    pub fn push_adapter(&mut self, name: impl Into<String>, adapter: impl OftAdapter) {
        self.push_slot(AdapterSlot::new(name, Box::new(adapter)));
    }

    /// Adds an adapter that has its name, after those that are there.
    pub fn push_slot(&mut self, slot: AdapterSlot) {
        self.adapters.push(slot);
    }
}
