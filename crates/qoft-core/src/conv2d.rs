//! A two-dimensional convolution, with adapters on its filters.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::Matrix;

use crate::adapter::{Adapters, BIAS, LayerTensor, OftAdapter, WEIGHT};
use crate::layer::Layer;
use qoft_scheme::{LayerKind, Result};

/// How a convolution moves over its input.
#[derive(Debug, Clone)]
pub struct Conv2dOptions {
    /// Steps, down and to the right.
    pub stride: [usize; 2],
    /// What is added around the input.
    pub padding: PaddingConfig2d,
    /// Distance between the values that a filter sees.
    pub dilation: [usize; 2],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: PaddingConfig2d::Valid,
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// A convolution with the filters `W_flat · (R₁ · R₂ …)ᵀ`, where a row of `W_flat` is a filter,
/// `[channels_in / groups · height · width]`. The filters stay frozen, only the rotations train, unless an
/// adapter has filters or a bias of its own.
///
/// A rotation turns what the filter sees at one place: its rows are patches of the input.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    #[module(skip)]
    options: Conv2dOptions,
    /// The filters as they were, where the inverse rotations would not bring them back.
    #[module(skip)]
    kept: Option<Tensor<4>>,
    adapters: Adapters,
}

impl Conv2d {
    /// A frozen convolution with filters of `[channels_out, channels_in / groups, height, width]`
    /// and a bias of `[channels_out]`.
    pub fn new(weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Self {
        Self {
            weight: weight.inner(),
            bias: bias.map(Tensor::inner),
            options,
            kept: None,
            adapters: Adapters::default(),
        }
    }

    /// The convolution of `x`, `[batch, channels_in, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let filters = self.filters();
        let bias = self.bias.as_ref().map(|bias| self.adapters.bias(bias));
        let devices = [filters.device(), x.device()].into_iter();
        let devices = devices.chain(bias.as_ref().map(Tensor::device));
        let autodiff = devices.into_iter().any(|device| device.is_autodiff());
        let [.., height, width] = x.dims();
        let options = self.conv_options([height, width]);
        if autodiff {
            let bias = bias.map(Tensor::autodiff);
            conv2d(x.autodiff(), filters.autodiff(), bias, options)
        } else {
            conv2d(x, filters, bias, options)
        }
    }

    /// The filters that the input is convolved with: those of the layer after its rotations.
    pub fn filters(&self) -> Tensor<4> {
        let shape = self.weight.dims();
        let rows = match self.adapters.own_weight() {
            Some(own) => own.value(),
            None => self.weight.clone().reshape([shape[0], self.filter_size()]),
        };
        // The last adapter stands next to the weight.
        let rotations = self.adapters.rotations().rev();
        let rows = rotations.fold(rows, |rows, r| r.forward_weight(rows));
        rows.reshape(shape)
    }

    /// The filters without adapters.
    pub fn weight(&self) -> &Tensor<4> {
        &self.weight
    }

    /// `[channels_out]`.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_ref()
    }

    /// Stride, padding, dilation and groups.
    pub fn options(&self) -> &Conv2dOptions {
        &self.options
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

    fn filter_size(&self) -> usize {
        self.weight.dims()[1..].iter().product()
    }

    fn conv_options(&self, input: [usize; 2]) -> ConvOptions<2> {
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            groups,
        } = &self.options;
        let kernel = self.weight.dims();
        let sides = match *padding {
            PaddingConfig2d::Valid => [(0, 0); 2],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
            PaddingConfig2d::Same => {
                [0, 1].map(|side| same(input[side], kernel[2 + side], stride[side]))
            }
        };
        ConvOptions::new_with_padding(*stride, sides, *dilation, *groups)
    }

    fn set_weight(&mut self, rows: Matrix) {
        let data = TensorData::new(rows.values, self.weight.dims());
        self.weight = Tensor::from_data(data, &self.weight.device());
    }
}

/// Padding before and after, by which the output has `input / stride` places, as in Burn.
fn same(input: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let places = input.div_ceil(stride).max(1);
    let total = ((places - 1) * stride + kernel).saturating_sub(input);
    (total / 2, total - total / 2)
}

impl Layer for Conv2d {
    fn kind(&self) -> LayerKind {
        LayerKind::Conv2d
    }

    fn in_features(&self) -> usize {
        self.filter_size()
    }

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        let data = self.weight.to_data();
        Matrix {
            shape: [self.weight.dims()[0], self.filter_size()],
            values: data.iter::<f32>().collect(),
        }
    }

    fn base_parameters(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.dims()[0]);
        self.weight.dims().iter().product::<usize>() + bias
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| LayerTensor::dense(BIAS, bias.dims()));
        let weight = LayerTensor::dense(WEIGHT, self.weight.dims());
        [weight].into_iter().chain(bias).collect()
    }

    fn values(&self, tensor: &str) -> Vec<f32> {
        match &self.bias {
            Some(bias) if tensor == BIAS => bias.to_data().iter::<f32>().collect(),
            _ => self.base_weight().values,
        }
    }

    fn merge(&mut self) -> Result<()> {
        let replaces = self.adapters.own_weight().is_some();
        if replaces {
            // What was merged before belongs to the new weight, too.
            self.unmerge()?;
        }
        let rows = self.base_weight();
        if let Some(rows) = self.adapters.merge_into(LayerKind::Conv2d, || rows)? {
            if replaces {
                self.kept = Some(self.weight.clone());
            }
            self.set_weight(rows);
        }
        Ok(())
    }

    fn unmerge(&mut self) -> Result<()> {
        if let Some(weight) = self.kept.take() {
            self.weight = weight;
            self.adapters.forget_merged(LayerKind::Conv2d);
        } else if self.adapters.merged().next().is_some() {
            let rows = self.base_weight();
            let rows = self.adapters.take_out(LayerKind::Conv2d, rows)?;
            self.set_weight(rows);
        }
        Ok(())
    }
}
