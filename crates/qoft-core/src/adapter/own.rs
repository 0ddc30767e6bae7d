//! Tensors of a layer that an adapter has its own values for: trained biases, and the weights of
//! modules that train whole.

use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::Matrix;

use crate::param::{AdapterParam, ParamPlace};

/// Name of a layer's weight, or of what corresponds to it.
pub const WEIGHT: &str = "weight";
/// Name of a layer's bias.
pub const BIAS: &str = "bias";

/// What a layer has of its own, and an adapter may have other values for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerTensor {
    /// [`WEIGHT`] or [`BIAS`].
    pub name: &'static str,
    /// Shape in files.
    pub shape: Vec<usize>,
    /// Whether it is stored as plain floats.
    pub dense: bool,
    /// Whether files have the columns of the matrix as rows.
    pub transposed: bool,
}

impl LayerTensor {
    /// A tensor of plain floats.
    pub fn dense(name: &'static str, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name,
            shape: shape.into(),
            dense: true,
            transposed: false,
        }
    }

    /// The matrix that files have the other way round: `[out, in]` as `[in, out]`.
    #[must_use]
    pub fn fan_in_fan_out(mut self) -> Self {
        self.shape.reverse();
        self.transposed = !self.transposed;
        self
    }

    /// Values as files have them, as those of the matrix that a layer computes with.
    pub fn read(&self, values: Vec<f32>) -> Vec<f32> {
        let [rows, cols] = self.rows();
        self.turned(values, [cols, rows])
    }

    /// Values of the matrix, as files have them.
    pub fn written(&self, values: Vec<f32>) -> Vec<f32> {
        self.turned(values, self.rows())
    }

    fn turned(&self, values: Vec<f32>, shape: [usize; 2]) -> Vec<f32> {
        match self.transposed {
            true => Matrix::new(values, shape).transposed().values,
            false => values,
        }
    }

    /// As a matrix: vectors are one row, and the rows of anything larger are what its first
    /// dimension counts.
    pub(crate) fn rows(&self) -> [usize; 2] {
        match self.shape[..] {
            [cols, rows] if self.transposed => [rows, cols],
            [width] => [1, width],
            [first, ref rest @ ..] => [first, rest.iter().product()],
            [] => [1, 1],
        }
    }
}

/// An adapter's values for a tensor of a layer. They stand in for the layer's own while the
/// adapter is active or merged.
#[derive(Debug, Clone)]
pub struct OwnTensor {
    tensor: LayerTensor,
    /// A matrix, with one row for what is a vector.
    param: AdapterParam,
    whole: bool,
    /// Where the strength is not 1: it, and the layer's own values.
    blend: Option<(f64, Tensor<2>)>,
}

impl OwnTensor {
    /// The values of `adapter` for a tensor of the layer at `path`, row-major. `whole` says that
    /// the module trains whole. They train on an autodiff device.
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn new(
        tensor: LayerTensor,
        values: Vec<f32>,
        whole: bool,
        [adapter, path]: [&str; 2],
        device: &Device,
    ) -> Self {
        let id = ParamPlace::of_adapter(adapter)
            .at(path)
            .named(tensor.name)
            .id();
        let param = AdapterParam::new(tensor.name, tensor.rows(), values, id, device);
        Self {
            tensor,
            param,
            whole,
            blend: None,
        }
    }

    /// The same with a strength: `strength` times as far from the layer's own values, which are
    /// `base`.
    #[must_use]
    pub fn with_strength(mut self, strength: f64, base: Vec<f32>) -> Self {
        if strength != 1.0 {
            let device = self.param.device().without_autodiff();
            let data = TensorData::new(base, self.tensor.rows());
            self.blend = Some((strength, Tensor::from_data(data, &device)));
        }
        self
    }

    /// Name of the tensor below the layer.
    pub fn name(&self) -> &'static str {
        self.tensor.name
    }

    /// The tensor that it stands in for.
    pub fn tensor(&self) -> &LayerTensor {
        &self.tensor
    }

    /// Whether it belongs to a module that trains whole.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether gradients reach it.
    pub fn trains(&self) -> bool {
        self.param.trains()
    }

    /// The parameter: a matrix, with one row for what is a vector.
    pub fn param(&self) -> &AdapterParam {
        &self.param
    }

    /// Brings what does not train to a device.
    pub(super) fn move_base(&mut self, device: &Device) {
        if let Some((_, base)) = &mut self.blend {
            *base = base.clone().to_device(&device.clone().without_autodiff());
        }
    }

    pub(super) fn param_mut(&mut self) -> &mut AdapterParam {
        &mut self.param
    }

    /// The values that the layer computes with, in the shape of the parameter.
    pub fn value(&self) -> Tensor<2> {
        let value = self.param.tensor::<2>();
        match &self.blend {
            None => value,
            Some((strength, base)) => {
                let base = match value.device().is_autodiff() {
                    true => base.clone().autodiff(),
                    false => base.clone(),
                };
                base.clone() + (value - base) * *strength
            }
        }
    }
}
