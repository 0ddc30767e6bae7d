//! Layers of Burn, frozen.

use std::sync::Arc;

use burn::tensor::Tensor;
use qoft_kernels::DenseWeight;

use crate::conv2d::{Conv2d, Conv2dOptions};
use crate::embedding::Embedding;
use crate::linear::Linear;
use crate::norm::Norm;
use qoft_scheme::LoadedLinear;

impl From<&burn::nn::Linear> for Linear {
    /// The layer with a copy of the weight, on the same device.
    fn from(layer: &burn::nn::Linear) -> Self {
        // Burn's weight is [in_features, out_features].
        let weight = layer.weight.val().inner().transpose();
        let device = weight.device();
        let bias = layer.bias.as_ref().map(|bias| values(bias.val()));
        Self::new(LoadedLinear::new(dense(weight)).with_bias(bias), &device)
    }
}

impl From<&burn::nn::conv::Conv2d> for Conv2d {
    /// The layer on the same tensors.
    fn from(layer: &burn::nn::conv::Conv2d) -> Self {
        let options = Conv2dOptions {
            stride: layer.stride,
            padding: layer.padding.clone(),
            dilation: layer.dilation,
            groups: layer.groups,
        };
        let bias = layer.bias.as_ref().map(|bias| bias.val());
        Self::new(layer.weight.val(), bias, options)
    }
}

impl From<&burn::nn::Embedding> for Embedding {
    /// The layer with a copy of the table.
    fn from(layer: &burn::nn::Embedding) -> Self {
        Self::new(Arc::new(dense(layer.weight.val())))
    }
}

impl From<&burn::nn::RmsNorm> for Norm {
    /// The norm on the same weight.
    fn from(layer: &burn::nn::RmsNorm) -> Self {
        Self::root_mean_square(layer.gamma.val(), layer.epsilon as f32)
    }
}

fn dense(weight: Tensor<2>) -> DenseWeight {
    let shape = weight.dims();
    DenseWeight::from_f32(&values(weight), shape)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
