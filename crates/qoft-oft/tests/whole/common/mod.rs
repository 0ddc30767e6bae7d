//! Small layers with numbers that look random.
// Each test file uses some of this.
#![allow(dead_code)]

use burn::module::ParamId;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::kernels::DenseWeight;
use qoft_core::{AdapterParam, Layer, Linear, LoadedLinear};
use qoft_oft::RotationSettings;
use qoft_oft::{OftConfig, OftRotation};

/// Numbers between -1 and 1.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A tensor of such numbers.
pub fn tensor<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), seed), shape);
    Tensor::from_data(data, &Device::flex())
}

/// A dense linear layer with a bias.
pub fn linear([out, input]: [usize; 2], seed: u64) -> Linear {
    let weight = DenseWeight::from_f32(&numbers(out * input, seed), [out, input]);
    let loaded = LoadedLinear::new(weight).with_bias(Some(numbers(out, seed + 1)));
    Linear::new(loaded, &Device::flex())
}

/// A rotation that differs from the identity, in blocks of `size`.
pub fn rotation(layer: &dyn Layer, size: usize, seed: u64, device: &Device) -> OftRotation {
    let mut config = OftConfig::default();
    config.oft_block_size = size;
    let settings = RotationSettings::new(&config, layer.in_features());
    let values = numbers(settings.shape().iter().product(), seed);
    let values = values.iter().map(|v| 0.2 * v).collect();
    let (name, id) = (OftRotation::param_name(layer.kind()), ParamId::from(seed));
    let param = AdapterParam::new(name, settings.shape(), values, id, device);
    OftRotation::with_param(settings, param)
}

/// The largest difference of two tensors.
pub fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a.inner() - b.inner()).abs().max().into_scalar()
}
