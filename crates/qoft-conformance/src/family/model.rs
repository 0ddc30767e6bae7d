//! A model that has a layer of each kind.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::kernels::{DenseWeight, FloatFormat};
use qoft_core::{Conv2d, Conv2dOptions, Embedding, Linear, LoadedLinear, Walk};

use crate::compute::{device, random};

/// Layers that do not know of each other.
#[derive(Module, Debug, Walk)]
pub(super) struct Model {
    dense: Linear,
    /// Its weight cannot be changed in place.
    packed: Linear,
    conv: Conv2d,
    /// In groups, with filters that are not square.
    strips: Conv2d,
    table: Embedding,
}

/// The output of each layer, flat, by its path.
pub(super) type Outputs = Vec<(&'static str, Tensor<1>)>;

impl Model {
    /// The layer that every configuration has to fit.
    pub const FIRST: &str = "dense";
    /// The layer that looks up what others multiply with.
    pub const TABLE: &str = "table";

    pub fn new() -> Self {
        let device = device();
        let dense = DenseWeight::from_f32(&random(10 * 48, 1), [10, 48]);
        let dense = LoadedLinear::new(dense).with_bias(Some(random(10, 2)));
        let bytes = FloatFormat::Bf16.to_bytes(&random(6 * 48, 3));
        let packed = DenseWeight::new(bytes.into(), FloatFormat::Bf16, [6, 48]);
        let table = DenseWeight::from_f32(&random(7 * 16, 4), [7, 16]);
        let mut groups = Conv2dOptions::default();
        groups.groups = 2;
        Self {
            dense: Linear::new(dense, &device),
            packed: Linear::new(LoadedLinear::new(packed), &device),
            conv: Conv2d::new(
                tensor([6, 4, 2, 2], 5),
                Some(tensor([6], 6)),
                Conv2dOptions::default(),
            ),
            strips: Conv2d::new(tensor([4, 2, 1, 4], 7), None, groups),
            table: Embedding::new(Arc::new(table)),
        }
    }

    /// What the layers make of inputs that are always the same.
    pub fn outputs(&self) -> Outputs {
        let ids = Tensor::<2, Int>::from_data([[1, 4, 0, 6]], &device());
        vec![
            ("dense", self.first(tensor([3, 48], 8)).flatten(0, 1)),
            (
                "packed",
                self.packed.forward(tensor([2, 48], 9)).flatten(0, 1),
            ),
            (
                "conv",
                self.conv.forward(tensor([2, 4, 5, 5], 10)).flatten(0, 3),
            ),
            (
                "strips",
                self.strips.forward(tensor([1, 4, 3, 6], 11)).flatten(0, 3),
            ),
            ("table", self.table.forward(ids).flatten(0, 2)),
        ]
    }

    /// What [`Self::FIRST`] makes of `x`, `[rows, 48]`.
    pub fn first(&self, x: Tensor<2>) -> Tensor<2> {
        self.dense.forward(x)
    }
}

/// Values between −1 and 1.
pub(super) fn tensor<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let values = random(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, shape), &device())
}

pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The largest difference.
pub(super) fn off(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.fold(0.0, |most, (a, b)| {
        let off = (a - b).abs();
        if off.is_nan() {
            f32::INFINITY
        } else {
            most.max(off)
        }
    })
}
