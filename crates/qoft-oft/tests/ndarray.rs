//! Burn's ndarray backend computes what flex computes.
#![cfg(feature = "ndarray")]
#![allow(deprecated)]

use burn::module::{Module, ParamId};
use burn::tensor::{Device, Tensor};
use qoft_core::kernels::DenseWeight;
use qoft_core::{Layer, Linear, LoadedLinear};
use qoft_oft::RotationSettings;
use qoft_oft::{OftConfig, OftRotation};

/// Output, and gradient of the rotation, of a layer with an adapter: built on one device, and moved
/// to another.
fn run([built, device]: [&Device; 2]) -> [Vec<f32>; 2] {
    let numbers = |count: usize| (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) / 11.0);
    let weight = DenseWeight::from_f32(&numbers(5 * 8).collect::<Vec<_>>(), [5, 8]);
    let bias = Some(numbers(5).collect());
    let loaded = LoadedLinear::new(weight).with_bias(bias);
    let mut linear = Linear::new(loaded, built);
    let mut config = OftConfig::default();
    config.oft_block_size = 4;
    let settings = RotationSettings::new(&config, 8);
    let values = numbers(settings.shape().iter().product()).collect();
    let autodiff = built.clone().autodiff();
    let rotation = OftRotation::new(settings, values, ParamId::from(1), &autodiff);
    linear.push_adapter("default", rotation).unwrap();
    let linear = match built == device {
        true => linear,
        false => linear.fork(&device.clone().autodiff()),
    };
    let x: Vec<f32> = numbers(3 * 8).collect();
    let x = Tensor::<1>::from_data(x.as_slice(), device).reshape([3, 8]);
    let y = linear.forward(x);
    let grads = y.clone().powi_scalar(2).sum().backward();
    let param = linear.adapters().slots()[0].params()[0];
    let grad = param.gradient(&grads).expect("a gradient");
    [y.inner().into_data(), grad.into_data()].map(|data| data.try_into_vec::<f32>().unwrap())
}

#[test]
fn forward_and_gradients_equal_those_of_flex() {
    let (flex, ndarray) = (Device::flex(), Device::ndarray());
    let expected = run([&flex, &flex]);
    assert!(expected[1].iter().any(|g| g.abs() > 0.1));
    for devices in [[&ndarray, &ndarray], [&flex, &ndarray], [&ndarray, &flex]] {
        let found = run(devices);
        for (a, b) in expected.iter().flatten().zip(found.iter().flatten()) {
            assert!((a - b).abs() < 1e-4, "{devices:?}: {a} {b}");
        }
    }
}
