//! Convolutions with adapters on their filters.

use crate::common::{difference, rotation, tensor};
use burn::nn::PaddingConfig2d;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use qoft_core::{Conv2d, Conv2dOptions, Layer, OftAdapter, Pass, adapters};

const CHANNELS: [usize; 2] = [4, 6];

/// Kernels, strides, dilations and groups, each with the padding of its sides.
fn cases() -> Vec<([usize; 2], Conv2dOptions)> {
    let mut cases = Vec::new();
    for kernel in [[3, 3], [1, 5], [1, 1], [2, 3]] {
        for (stride, dilation, groups) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2)] {
            let padding = match (stride, dilation) {
                (1, 1) => PaddingConfig2d::Same,
                (1, _) => PaddingConfig2d::Explicit(0, 2, 1, 3),
                (_, 1) => PaddingConfig2d::Explicit(1, 1, 1, 1),
                _ => PaddingConfig2d::Valid,
            };
            let mut options = Conv2dOptions::default();
            options.stride = [stride, stride];
            options.padding = padding;
            options.dilation = [dilation, dilation];
            options.groups = groups;
            cases.push((kernel, options));
        }
    }
    cases
}

fn conv([height, width]: [usize; 2], options: &Conv2dOptions) -> Conv2d {
    let [input, output] = CHANNELS;
    let weight = tensor([output, input / options.groups, height, width], 1);
    Conv2d::new(weight, Some(tensor([output], 2)), options.clone())
}

fn input() -> Tensor<4> {
    tensor([2, CHANNELS[0], 32, 32], 3)
}

/// Burn's own layer with the same weight.
fn burns(conv: &Conv2d, weight: Tensor<4>, x: Tensor<4>) -> Tensor<4> {
    let [output, input, height, width] = weight.dims();
    let options = conv.options();
    let config =
        burn::nn::conv::Conv2dConfig::new([input * options.groups, output], [height, width]);
    let config = config
        .with_stride(options.stride)
        .with_dilation(options.dilation)
        .with_groups(options.groups)
        .with_padding(options.padding.clone());
    let mut burns = config.init(&Device::flex());
    burns.weight = burn::module::Param::from_tensor(weight);
    burns.bias = conv.bias().cloned().map(burn::module::Param::from_tensor);
    burns.forward(x)
}

#[test]
fn an_identity_changes_nothing_and_the_layer_is_burns() {
    for (kernel, options) in cases() {
        let mut conv = conv(kernel, &options);
        let base = burns(&conv, conv.weight().clone(), input());
        assert_eq!(difference(conv.forward(input()), base.clone()), 0.0);
        let mut identity = rotation(&conv, 4, 9, &Device::flex());
        let zeros = vec![0.0; identity.params()[0].len()];
        identity.params_mut()[0].set(zeros);
        conv.push_adapter("default", identity).unwrap();
        let off = difference(conv.forward(input()), base);
        assert!(off < 1e-6, "{kernel:?} {options:?}: {off}");
    }
}

#[test]
fn merged_equals_adapted_for_every_geometry() {
    for (kernel, options) in cases() {
        let mut conv = conv(kernel, &options);
        let base = conv.forward(input());
        for (seed, name) in (20..).zip(["a", "b"]) {
            let rotation = rotation(&conv, 4 + 2 * (seed as usize % 2), seed, &Device::flex());
            conv.push_adapter(name, rotation).unwrap();
        }
        let adapted = conv.forward(input());
        assert!(difference(adapted.clone(), base.clone()) > 0.05);
        adapters::merge(&mut conv).unwrap();
        let merged = burns(&conv, conv.weight().clone(), input());
        let off = difference(merged, adapted);
        assert!(off < 1e-5, "{kernel:?} {options:?}: {off}");
        adapters::unmerge(&mut conv).unwrap();
        conv.adapters_mut().disable();
        let off = difference(conv.forward(input()), base);
        assert!(off < 1e-5, "{kernel:?} {options:?}: {off}");
    }
}

#[test]
fn a_rotation_turns_the_patches_that_a_filter_sees() {
    let options = Conv2dOptions::default();
    let mut conv = conv([3, 3], &options);
    let rotation = rotation(&conv, 6, 21, &Device::flex());
    let x = tensor([1, CHANNELS[0], 3, 3], 22);
    let patch = rotation.forward(x.clone().reshape([1, 36]).into(), Pass::EVALUATION);
    let rows = conv.weight().clone().reshape([6, 36]);
    let expected = patch.matmul(rows.transpose()) + conv.bias().unwrap().clone().unsqueeze();
    conv.push_adapter("default", rotation).unwrap();
    let y = conv.forward(x).reshape([1, 6]);
    assert!(difference(y, expected) < 1e-5);
}

#[test]
fn only_the_rotation_trains() {
    for (kernel, options) in cases() {
        let mut conv = conv(kernel, &options);
        let a = rotation(&conv, 4, 30, &Device::flex().autodiff());
        conv.push_adapter("a", a).unwrap();
        let b = rotation(&conv, 6, 31, &Device::flex());
        conv.push_adapter("b", b).unwrap();
        let y = conv.forward(input());
        let c = tensor(y.dims(), 32);
        let gradients = (y * c.clone().autodiff()).sum().backward();
        let param = |name| conv.adapters().get(name).unwrap().params()[0];
        assert!(!param("b").trains());
        let gradient = param("a").gradient(&gradients).expect("a gradient");
        let gradient = gradient.into_data();
        let gradient: Vec<f64> = gradient.iter::<f64>().collect();
        assert!(!conv.weight().is_require_grad());

        // Along the gradient the loss changes as fast as the gradient says.
        let square: f64 = gradient.iter().map(|g| g * g).sum();
        let step = 0.01 / square.sqrt();
        let loss = |sign: f64| {
            let mut moved = conv.clone();
            let slot = moved.adapters_mut().get_mut("a").unwrap();
            let mut values = slot.params()[0].to_vec();
            let steps = gradient.iter().map(|g| (g * step * sign) as f32);
            values
                .iter_mut()
                .zip(steps)
                .for_each(|(value, step)| *value += step);
            slot.params_mut()[0].set(values);
            let y = moved.forward(input()) * c.clone();
            y.into_data().iter::<f64>().sum::<f64>()
        };
        let slope = (loss(1.0) - loss(-1.0)) / (2.0 * step);
        assert!(
            (slope / square - 1.0).abs() < 0.02,
            "{kernel:?} {options:?}: {slope} {square}"
        );
    }
}

#[test]
fn padding_is_that_of_each_side() {
    let mut options = Conv2dOptions::default();
    options.padding = PaddingConfig2d::Explicit(0, 1, 2, 3);
    let conv = conv([3, 3], &options);
    let sides = ConvOptions::new_with_padding([1, 1], [(0, 2), (1, 3)], [1, 1], 1);
    let weight = conv.weight().clone();
    let expected = conv2d(input(), weight, conv.bias().cloned(), sides);
    assert_eq!(expected.dims()[2..], [32, 34]);
    assert_eq!(difference(conv.forward(input()), expected), 0.0);
}
