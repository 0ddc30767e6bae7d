//! A two-dimensional convolution, with adapters on its filters.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::Matrix;

use crate::adapter::{Adapters, BIAS, LayerTensor, OftAdapter, WEIGHT};
use crate::frozen::{Frozen, Mergeable, WeightForm};
use crate::layer::{Filter, Layer};
use crate::still::Still;
use qoft_scheme::{LayerKind, Result};

/// How a convolution moves over its input.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    weight: Still<Frozen<Tensor<4>>>,
    bias: Option<Still<Tensor<1>>>,
    #[module(skip)]
    options: Conv2dOptions,
    adapters: Adapters,
}

impl Conv2d {
    /// A frozen convolution with filters of `[channels_out, channels_in / groups, height, width]`
    /// and a bias of `[channels_out]`.
    pub fn new(weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Self {
        Self {
            weight: Still::new(Frozen::new(weight.inner())),
            bias: bias.map(|bias| Still::new(bias.inner())),
            options,
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
        let weight = self.weight();
        let rows = match self.adapters.own_weight() {
            Some(own) => own.value(),
            None => weight.clone().flatten(1, 3),
        };
        self.adapters.turn_weight(rows).reshape(weight.dims())
    }

    /// The filters without adapters.
    pub fn weight(&self) -> &Tensor<4> {
        self.weight.get()
    }

    /// `[channels_out]`.
    pub fn bias(&self) -> Option<&Tensor<1>> {
        self.bias.as_deref()
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
        self.weight().dims()[1..].iter().product()
    }

    fn conv_options(&self, input: [usize; 2]) -> ConvOptions<2> {
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            groups,
        } = &self.options;
        let kernel = self.weight().dims();
        let sides = match *padding {
            PaddingConfig2d::Valid => [(0, 0); 2],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
            PaddingConfig2d::Same => {
                [0, 1].map(|side| same(input[side], kernel[2 + side], stride[side]))
            }
        };
        ConvOptions::new_with_padding(*stride, sides, *dilation, *groups)
    }
}

/// Each filter is a row.
impl WeightForm for Tensor<4> {
    fn to_rows(&self) -> Matrix {
        let [filters, ref rest @ ..] = self.dims();
        Matrix::new(
            self.to_data().iter::<f32>().collect(),
            [filters, rest.iter().product()],
        )
    }

    fn with_rows(&self, rows: &Matrix) -> Self {
        let data = TensorData::new(rows.values.clone(), self.dims());
        Tensor::from_data(data, &self.device())
    }

    fn is_f32(&self) -> bool {
        true
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

    fn out_features(&self) -> usize {
        self.weight().dims()[0]
    }

    fn filter(&self) -> Option<Filter> {
        let [.., height, width] = self.weight().dims();
        Some(Filter::new([height, width], self.options.groups))
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
        let bias = self.bias.as_ref().map_or(0, |bias| bias.dims()[0]);
        self.weight().dims().iter().product::<usize>() + bias
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| LayerTensor::dense(BIAS, bias.dims()));
        let weight = LayerTensor::dense(WEIGHT, self.weight().dims());
        [weight].into_iter().chain(bias).collect()
    }

    fn values(&self, tensor: &str) -> Vec<f32> {
        match &self.bias {
            Some(bias) if tensor == BIAS => bias.to_data().iter::<f32>().collect(),
            _ => self.base_weight().values,
        }
    }

    fn mergeable(&self) -> Option<&dyn Mergeable> {
        Some(&*self.weight)
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable> {
        Some(&mut *self.weight)
    }
}
