//! PEFT's small models, made of Burn's layers.

use burn::module::{Module, Param};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{EmbeddingConfig, LinearConfig};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor};
use qoft::nn::{Conv2d, Embedding, Linear, Walk};

use crate::fixture::Tensors;

/// A model and how it is fed.
pub trait Net: Module + Walk {
    /// What it is given.
    type Input: Clone;

    /// The model with the weights of the fixtures, frozen.
    fn load() -> Self;

    /// The input of a case.
    fn input(expected: &Tensors) -> Self::Input;

    /// Logarithms of the probabilities of two classes.
    fn run(&self, input: Self::Input) -> Tensor<2>;
}

/// Two linear layers.
#[derive(Module, Debug, Walk)]
pub struct Mlp {
    pub lin0: Linear,
    pub lin1: Linear,
}

impl Mlp {
    /// The model on inputs of any rank.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        log_softmax(self.lin1.forward(relu(self.lin0.forward(x))), D - 1)
    }
}

impl Net for Mlp {
    type Input = Tensor<2>;

    fn load() -> Self {
        let weights = Tensors::open("mlp/model.safetensors");
        Self {
            lin0: linear(&weights, "lin0"),
            lin1: linear(&weights, "lin1"),
        }
    }

    fn input(expected: &Tensors) -> Tensor<2> {
        expected.float("input")
    }

    fn run(&self, input: Tensor<2>) -> Tensor<2> {
        self.forward(input)
    }
}

/// An embedding, a linear layer that is stored as `[in, out]`, and another one.
#[derive(Module, Debug, Walk)]
pub struct EmbConv1d {
    pub emb: Embedding,
    pub conv1d: Linear,
    pub lin0: Linear,
}

impl Net for EmbConv1d {
    type Input = Tensor<2, Int>;

    fn load() -> Self {
        let device = Device::flex();
        let weights = Tensors::open("emb_conv1d/model.safetensors");
        let mut emb = EmbeddingConfig::new(100, 5).init(&device);
        emb.weight = Param::from_tensor(weights.float("emb.weight"));
        // As Burn stores its own linear layers.
        let mut conv1d = LinearConfig::new(5, 1).init(&device);
        conv1d.weight = Param::from_tensor(weights.float("conv1d.weight"));
        conv1d.bias = Some(Param::from_tensor(weights.float("conv1d.bias")));
        Self {
            emb: Embedding::from(&emb),
            conv1d: Linear::from(&conv1d),
            lin0: linear(&weights, "lin0"),
        }
    }

    fn input(expected: &Tensors) -> Tensor<2, Int> {
        expected.int("input")
    }

    fn run(&self, input: Tensor<2, Int>) -> Tensor<2> {
        let x = relu(self.conv1d.forward(self.emb.forward(input)));
        log_softmax(self.lin0.forward(x.flatten(1, 2)), 1)
    }
}

/// A convolution whose filters see all of the input, and a linear layer.
#[derive(Module, Debug, Walk)]
pub struct ConvNet {
    pub conv2d: Conv2d,
    pub lin0: Linear,
}

impl Net for ConvNet {
    type Input = Tensor<4>;

    fn load() -> Self {
        let weights = Tensors::open("conv2d/model.safetensors");
        let mut conv = Conv2dConfig::new([5, 10], [3, 3]).init(&Device::flex());
        conv.weight = Param::from_tensor(weights.float("conv2d.weight"));
        conv.bias = Some(Param::from_tensor(weights.float("conv2d.bias")));
        Self {
            conv2d: Conv2d::from(&conv),
            lin0: linear(&weights, "lin0"),
        }
    }

    fn input(expected: &Tensors) -> Tensor<4> {
        expected.float("input")
    }

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        let x = relu(self.conv2d.forward(input)).flatten(1, 3);
        log_softmax(self.lin0.forward(x), 1)
    }
}

fn linear(weights: &Tensors, name: &str) -> Linear {
    let weight: Tensor<2> = weights.float(&format!("{name}.weight"));
    let [out, input] = weight.dims();
    let mut linear = LinearConfig::new(input, out).init(&Device::flex());
    linear.weight = Param::from_tensor(weight.transpose());
    linear.bias = Some(Param::from_tensor(weights.float(&format!("{name}.bias"))));
    Linear::from(&linear)
}
