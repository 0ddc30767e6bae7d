//! Convolutions of images.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Device, Tensor};
use qoft::nn::{self, Conv2d, Walk};
use serde_json::Value;

use crate::fixture::{Tensors, config, json, near, numbers, off, path};

/// Every so many values of an output are stored.
const STEP: usize = 997;
const CASES: [&str; 6] = [
    "resnet_stem",
    "inner_64_channels",
    "pointwise",
    "groups",
    "dilated",
    "not_square",
];

#[derive(Module, Debug, Walk)]
struct Image {
    conv2d: Conv2d,
}

impl Image {
    /// Every `STEP`-th value of the output.
    fn sample(&self, x: &Tensor<4>, dims: [usize; 4]) -> Tensor<1> {
        let y = self.conv2d.forward(x.clone());
        assert_eq!(y.dims(), dims);
        let y: Tensor<1> = y.flatten(0, 3);
        let count = y.dims()[0].div_ceil(STEP);
        let indices = Tensor::arange(0..count as i64, &Device::flex()) * STEP as i64;
        y.select(0, indices)
    }
}

fn sizes<const N: usize>(value: &Value) -> [usize; N] {
    let sizes = value.as_array().unwrap().iter();
    let sizes: Vec<usize> = sizes.map(|v| v.as_u64().unwrap() as usize).collect();
    sizes.try_into().unwrap()
}

/// The layer, its input, and the shape of its output.
fn image(case: &str) -> (Image, Tensor<4>, [usize; 4]) {
    let options = json(&format!("image_{case}/options.json"));
    let weights = Tensors::open(&format!("image_{case}/model.safetensors"));
    let weight: Tensor<4> = weights.float("weight");
    let [out, input, height, width] = weight.dims();
    let groups = options["groups"].as_u64().unwrap() as usize;
    let [down, right] = sizes(&options["padding"]);
    let config = Conv2dConfig::new([input * groups, out], [height, width])
        .with_stride(sizes(&options["stride"]))
        .with_dilation(sizes(&options["dilation"]))
        .with_groups(groups)
        .with_padding(PaddingConfig2d::Explicit(down, right, down, right));
    let mut conv = config.init(&Device::flex());
    conv.weight = Param::from_tensor(weight);
    conv.bias = Some(Param::from_tensor(weights.float("bias")));
    let image = Image {
        conv2d: Conv2d::from(&conv),
    };
    (
        image,
        numbers(sizes(&options["input"])),
        sizes(&options["output"]),
    )
}

#[test]
fn adapted_and_merged_images_are_those_of_the_turned_filters() {
    for case in CASES {
        let (mut model, x, dims) = image(case);
        let expected = Tensors::open(&format!("image_{case}/expected.safetensors"));
        let [base, adapted] = ["base", "adapted"].map(|name| expected.float(name));
        near(&model.sample(&x, dims), &base, case);
        assert!(off(&adapted, &base) > 0.1, "{case}");
        let folder = path(&format!("image_{case}"));
        nn::load(
            &mut model,
            &folder,
            &nn::Families::linked().unwrap(),
            "default",
            &Device::flex(),
        )
        .unwrap();
        near(&model.sample(&x, dims), &adapted, case);
        nn::merge(&mut model).unwrap();
        near(&model.sample(&x, dims), &adapted, case);
        nn::unmerge(&mut model).unwrap();
        nn::disable_all(&mut model);
        near(&model.sample(&x, dims), &base, case);
    }
}

#[test]
fn an_identity_changes_no_image() {
    for case in CASES {
        let (mut model, x, dims) = image(case);
        let expected = Tensors::open(&format!("image_{case}/expected.safetensors"));
        let config = config(&format!("image_{case}"));
        nn::inject(&mut model, &config, "default", 1, &Device::flex()).unwrap();
        near(&model.sample(&x, dims), &expected.float("base"), case);
        nn::merge(&mut model).unwrap();
        near(&model.sample(&x, dims), &expected.float("base"), case);
    }
}
