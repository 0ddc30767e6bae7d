//! One layer at a time, against PEFT in float64.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_boft::{BoftConfig, BoftRotation, Butterfly};
use qoft_core::kernels::DenseWeight;
use qoft_core::{
    AdapterParam, Conv2d, Conv2dOptions, Draw, Layer, Linear, LoadedLinear, OftAdapter, ParamPlace,
    Pass, Walk, adapters, default_device,
};
use qoft_peft::{self as peft, AdapterConfig, AdapterFolder, Families, ModelFacts, Site};
use safetensors::SafeTensors;
use serde_json::Value;

#[derive(Module, Debug, Walk)]
struct LinearModel {
    layer: Linear,
}

#[derive(Module, Debug, Walk)]
struct ConvModel {
    layer: Conv2d,
}

fn folder(case: &str) -> PathBuf {
    qoft_fixtures::path("boft/layers").join(case)
}

/// Shape and values of a tensor in a file of a case.
fn read(case: &str, file: &str, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(folder(case).join(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).ok()?;
    let values = tensor.data().chunks_exact(4);
    let values = values.map(|v| f32::from_le_bytes(v.try_into().unwrap()));
    Some((tensor.shape().to_vec(), values.collect()))
}

fn tensor<const D: usize>(case: &str, file: &str, name: &str) -> Tensor<D> {
    let (shape, values) = read(case, file, name).unwrap_or_else(|| panic!("{case}: {name}"));
    Tensor::from_data(TensorData::new(values, shape), &default_device().unwrap())
}

fn expected<const D: usize>(case: &str, name: &str) -> Tensor<D> {
    tensor(case, "expected.safetensors", name)
}

fn linear(case: &str) -> LinearModel {
    let (shape, values) = read(case, "model.safetensors", "layer.weight").unwrap();
    let weight = DenseWeight::from_f32(&values, [shape[0], shape[1]]);
    let bias = read(case, "model.safetensors", "layer.bias").map(|(_, values)| values);
    let loaded = LoadedLinear::new(weight).with_bias(bias);
    let layer = Linear::new(loaded, &default_device().unwrap());
    LinearModel { layer }
}

fn conv(case: &str) -> ConvModel {
    let options = match case {
        "conv_size" => {
            let mut options = Conv2dOptions::default();
            options.stride = [2, 2];
            options.padding = burn::nn::PaddingConfig2d::Explicit(1, 1, 1, 1);
            options
        }
        _ => Conv2dOptions::default(),
    };
    let bias = read(case, "model.safetensors", "layer.bias");
    let bias = bias.map(|_| tensor(case, "model.safetensors", "layer.bias"));
    let weight = tensor(case, "model.safetensors", "layer.weight");
    let layer = Conv2d::new(weight, bias, options);
    ConvModel { layer }
}

/// A model with a layer that can be run.
trait Net: Walk {
    fn load(case: &str) -> Self;
    fn run(&self, case: &str) -> Tensor<1>;
}

impl Net for LinearModel {
    fn load(case: &str) -> Self {
        linear(case)
    }

    fn run(&self, case: &str) -> Tensor<1> {
        let x: Tensor<2> = expected(case, "input");
        self.layer.forward(x).flatten(0, 1)
    }
}

impl Net for ConvModel {
    fn load(case: &str) -> Self {
        conv(case)
    }

    fn run(&self, case: &str) -> Tensor<1> {
        self.layer.forward(expected(case, "input")).flatten(0, 3)
    }
}

fn flat(case: &str, name: &str) -> Tensor<1> {
    let (_, values) = read(case, "expected.safetensors", name).unwrap();
    Tensor::from_data(values.as_slice(), &default_device().unwrap())
}

/// Fails unless the values are the same up to what f32 rounds.
fn near(found: Tensor<1>, wanted: Tensor<1>, what: &str) {
    let size = wanted.clone().abs().max().into_scalar::<f32>().max(1.0);
    let off: f32 = (found.inner() - wanted).abs().max().into_scalar();
    assert!(off < 2e-5 * size, "{what}: {off} of {size}");
}

/// `numbers` of the Python scripts.
fn numbers(count: usize) -> Vec<f32> {
    let number = |i: u64| ((i * 2_654_435_761) % (1 << 32) / 256) as f64 / f64::from(1 << 23) - 1.0;
    (0..count as u64).map(|i| number(i) as f32).collect()
}

fn check<N: Net>(case: &str) {
    let device = default_device().unwrap();
    let load = |device: &Device| {
        let mut model = N::load(case);
        let (families, facts) = (Families::linked().unwrap(), ModelFacts::default());
        peft::load(
            &mut model,
            &folder(case),
            &families,
            facts,
            "default",
            device,
        )
        .unwrap_or_else(|e| panic!("{case}: {e}"));
        model
    };
    near(N::load(case).run(case), flat(case, "base"), case);
    let mut model = load(&device);
    near(model.run(case), flat(case, "adapted"), case);

    adapters::merge(&mut model).unwrap();
    near(model.run(case), flat(case, "adapted"), case);
    let merged = model.layers()[0].1.base_weight();
    let merged = Tensor::from_data(merged.values.as_slice(), &device);
    near(merged, flat(case, "merged"), case);
    adapters::unmerge(&mut model).unwrap();
    adapters::disable_all(&mut model);
    near(model.run(case), flat(case, "base"), case);

    let model = load(&device.clone().autodiff());
    let y = model.run(case);
    let weights = numbers(y.dims()[0]);
    let weights = Tensor::<1>::from_data(weights.as_slice(), &device).autodiff();
    let gradients = (y * weights).sum().backward();
    let layers = model.layers();
    for param in layers[0].1.adapters().slots()[0].params() {
        let wanted = flat(case, &format!("grad.{}", param.name()));
        let found = param.gradient(&gradients);
        // A block of one value is 1, whatever the value.
        let found = found.unwrap_or_else(|| {
            assert_eq!(case, "linear_of_ones");
            wanted.zeros_like()
        });
        near(found, wanted, &format!("{case}: {}", param.name()));
    }
}

#[test]
fn layers_compute_merge_and_train_as_in_peft() {
    let mut count = 0;
    for entry in std::fs::read_dir(qoft_fixtures::path("boft/layers")).unwrap() {
        let case = entry.unwrap().file_name().into_string().unwrap();
        match case.starts_with("conv") {
            true => check::<ConvModel>(&case),
            false => check::<LinearModel>(&case),
        }
        count += 1;
    }
    assert_eq!(count, 13);
}

#[test]
fn half_of_an_adapter_lies_between_it_and_none() {
    let case = "linear_two_factors";
    let families = Families::linked().unwrap();
    let saved = AdapterFolder::open(&folder(case), &families).unwrap();
    let with = |strength: f64| {
        let (mut model, device) = (linear(case), default_device().unwrap());
        let facts = ModelFacts::default();
        peft::attach_folder(&mut model, &saved, strength, facts, "a", &device).unwrap();
        model.run(case)
    };
    near(with(0.0), flat(case, "base"), "none");
    near(with(1.0), flat(case, "adapted"), "all");
    let off = |y: Tensor<1>| {
        let base = flat(case, "base");
        (y - base).square().sum().into_scalar::<f32>()
    };
    let (half, all) = (off(with(0.5)), off(with(1.0)));
    assert!(0.01 * all < half && half < all, "{half} {all}");
}

fn site_error(features: usize, config: &BoftConfig) -> Option<String> {
    let weight = qoft_core::Matrix::new(vec![0.0; 3 * features], [3, features]);
    let site = Site::with_weight("a.b", qoft_core::LayerKind::Linear, &weight);
    config.param_shapes(&site).err().map(|e| e.to_string())
}

#[test]
fn blocks_that_do_not_fit_are_named() {
    let config = |size, num, factors| {
        let mut config = BoftConfig::default();
        config.boft_block_size = size;
        config.boft_block_num = num;
        config.boft_n_butterfly_factor = factors;
        config
    };
    for (features, config) in [
        (48, config(4, 0, 3)),
        (48, config(3, 0, 1)),
        (48, config(0, 1, 1)),
        (8, config(0, 4, 3)),
    ] {
        assert_eq!(site_error(features, &config), None, "{config:?}");
    }
    for (features, config, key) in [
        (48, config(5, 0, 1), "boft_block_size"),
        (48, config(usize::MAX, 0, 1), "boft_block_size"),
        (48, config(0, 7, 1), "boft_block_num"),
        (48, config(4, 0, 4), "boft_n_butterfly_factor"),
        (48, config(3, 0, 2), "boft_n_butterfly_factor"),
        (48, config(0, 3, 2), "boft_n_butterfly_factor"),
        (48, config(0, 4, 32), "boft_n_butterfly_factor"),
    ] {
        let error = site_error(features, &config).unwrap_or_else(|| panic!("{config:?}"));
        assert!(error.contains(key) && error.contains("`a.b`"), "{error}");
    }
}

#[test]
fn convolutions_that_peft_has_no_butterfly_for_are_refused() {
    let device = default_device().unwrap();
    let mut config = BoftConfig::default();
    config.common = peft::CommonConfig::targeting(["layer"]);
    for (shape, groups, reason) in [
        ([4, 4, 1, 2], 1, "not square"),
        ([4, 2, 2, 2], 2, "with groups"),
    ] {
        let mut options = Conv2dOptions::default();
        options.groups = groups;
        let layer = Conv2d::new(Tensor::ones(shape, &device), None, options);
        let mut model = ConvModel { layer };
        let facts = ModelFacts::default();
        let error = peft::attach(&mut model, &config, facts, "a", 1, &device).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(reason) && error.contains("`layer`"),
            "{error}"
        );
        assert!(model.layer.adapters().slots().is_empty());
    }
}

/// A rotation of 32 features with a scale of 1.
fn rotation(factors: usize, dropout: f64, value: f32) -> BoftRotation {
    let weight = qoft_core::Matrix::new(vec![0.0; 3 * 32], [3, 32]);
    let site = Site::with_weight("b", qoft_core::LayerKind::Linear, &weight);
    let butterfly = Butterfly::new(&BoftConfig::default(), factors, &site).unwrap();
    let device = default_device().unwrap().autodiff();
    let id = |name| ParamPlace::of_adapter("a").at("b").named(name).id();
    let values = (0..factors * 128).map(|i| value * (i as f32).sin());
    let blocks = AdapterParam::new(
        BoftRotation::BLOCKS,
        [factors, 8, 4, 4],
        values.collect(),
        id(BoftRotation::BLOCKS),
        &device,
    );
    let scales = AdapterParam::new(
        BoftRotation::SCALES,
        [3, 1],
        vec![1.0; 3],
        id(BoftRotation::SCALES),
        &device,
    );
    BoftRotation::new(butterfly, blocks, scales).with_dropout(dropout)
}

fn turned(rotation: &BoftRotation, pass: Pass) -> Vec<f32> {
    let x = Tensor::<2>::ones([1, 32], &default_device().unwrap());
    let y = rotation.forward(x.into(), pass);
    y.into_data().iter().collect()
}

#[test]
fn dropout_leaves_out_its_share_of_one_factor() {
    let training = |batch| Pass::training(Draw::new(1, 2, batch));
    // 40 % of 8 blocks are 3 whole ones.
    let one = rotation(1, 0.4, 0.5);
    let kept = turned(&one, training(0));
    let same = kept
        .chunks(4)
        .filter(|block| block.iter().all(|v| *v == 1.0));
    assert_eq!(same.count(), 3);
    assert_eq!(turned(&one, training(0)), kept);
    assert!((1..9).any(|batch| turned(&one, training(batch)) != kept));
    let whole = turned(&rotation(1, 0.0, 0.5), training(0));
    assert_eq!(turned(&one, Pass::EVALUATION), whole);
    // Without all blocks of one of two factors something is left of the other.
    let two = rotation(2, 1.0, 0.5);
    let outputs: Vec<_> = (0..16).map(|batch| turned(&two, training(batch))).collect();
    let mut distinct: Vec<&Vec<f32>> = Vec::new();
    for output in &outputs {
        if !distinct.contains(&output) {
            distinct.push(output);
        }
    }
    assert_eq!(distinct.len(), 2, "one of two factors is left");
    assert!(outputs.iter().all(|y| y.iter().any(|v| *v != 1.0)));
    assert!(!outputs.contains(&turned(&two, Pass::EVALUATION)));
}

#[test]
fn a_file_of_another_number_of_factors_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let from = folder("linear_two_factors");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(from.join(file), work.path().join(file)).unwrap();
    }
    let path = work.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["boft_n_butterfly_factor"] = 3.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let (mut model, device) = (linear("linear_two_factors"), default_device().unwrap());
    let (families, facts) = (Families::linked().unwrap(), ModelFacts::default());
    let error = peft::load(&mut model, work.path(), &families, facts, "a", &device);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("boft_R`: expected shape [3, 12, 4, 4], found [2, 12, 4, 4]"),
        "{error}"
    );
}
