//! Biases and whole modules that belong to adapters.

use crate::common::{difference, linear, numbers, tensor};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use qoft_core::kernels::{DenseWeight, Matrix};
use qoft_core::{
    Conv2d, Conv2dOptions, Embedding, Error, Layer, Linear, Norm, Walk, adapters,
    trainable_parameters,
};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig, ConfigFile, Families, ModelFacts};

const FACTS: ModelFacts = ModelFacts::NONE.with_head("head");

#[derive(Module, Debug, Walk)]
struct Model {
    table: Embedding,
    norm: Norm,
    first: Linear,
    conv: Conv2d,
    head: Linear,
}

impl Model {
    fn new() -> Self {
        let table = DenseWeight::from_f32(&numbers(40, 1), [10, 4]);
        let bias = Some(tensor([8], 6));
        Self {
            table: Embedding::new(std::sync::Arc::new(table)),
            norm: Norm::root_mean_square(tensor([4], 2), 1e-5),
            first: linear([8, 4], 3),
            conv: Conv2d::new(tensor([8, 8, 1, 1], 5), bias, Conv2dOptions::default()),
            head: linear([5, 8], 7),
        }
    }

    fn forward(&self) -> Tensor<3> {
        let ids = Tensor::<2, Int>::from_data([[1, 3, 3], [9, 0, 2]], &Device::flex());
        let x = self.norm.forward(self.table.forward(ids));
        let x = self.first.forward(x).swap_dims(1, 2).unsqueeze_dim::<4>(3);
        let x = self.conv.forward(x).squeeze_dim::<3>(3).swap_dims(1, 2);
        self.head.forward(x)
    }
}

fn config(bias: &str, modules: &[&str]) -> OftConfig {
    let mut config = OftConfig::default();
    config.oft_block_size = 4;
    config.common = CommonConfig::targeting(["first"]);
    config.common.bias = bias.into();
    config.common.modules_to_save = Some(modules.iter().map(|&name| name.to_owned()).collect());
    config.init_weights = false;
    config.use_cayley_neumann = false;
    config
}

/// Attaches an adapter, and moves all of its parameters.
fn attach(model: &mut Model, config: &OftConfig, name: &str) {
    peft::attach(model, config, FACTS, name, 1, &Device::flex()).unwrap();
    let mut seed = name.len() as u64 * 100 + u64::from(name.as_bytes()[0]);
    model.walk_mut("", &mut |_, layer| {
        if let Some(slot) = layer.adapters_mut().get_mut(name) {
            for param in slot.params_mut() {
                seed += 1;
                let steps = numbers(param.len(), seed).into_iter().map(|v| 0.3 * v);
                let moved = param.to_vec().into_iter().zip(steps).map(|(v, s)| v + s);
                param.set(moved.collect());
            }
        }
    });
}

fn own_names(model: &Model, adapter: &str) -> Vec<String> {
    let tensors = peft::trained(model, adapter).into_iter();
    let names = tensors.map(|(name, ..)| name.trim_start_matches(peft::PREFIX).to_owned());
    names.filter(|name| !name.contains("oft_R")).collect()
}

#[test]
fn the_configuration_says_what_an_adapter_has_of_its_own() {
    let names = |bias: &str, modules: &[&str]| {
        let mut model = Model::new();
        attach(&mut model, &config(bias, modules), "a");
        own_names(&model, "a")
    };
    assert!(names("none", &[]).is_empty());
    // PEFT looks at the end of the word only.
    for only in ["oft_only", "lora_only"] {
        assert_eq!(names(only, &[]), ["first.base_layer.bias"]);
    }
    let all = ["first.base_layer.bias", "conv.bias", "head.bias"];
    assert_eq!(names("all", &[]), all);
    let whole = ["table.weight", "norm.weight", "head.weight", "head.bias"];
    assert_eq!(names("none", &["table", "norm", "head"]), whole);
    // A module that trains whole has no rotation.
    let error = peft::attach(
        &mut Model::new(),
        &config("none", &["first"]),
        FACTS,
        "a",
        1,
        &Device::flex(),
    );
    assert!(matches!(error, Err(Error::NoTarget { .. })), "{error:?}");
    let absent = config("none", &["score"]);
    let error = peft::attach(&mut Model::new(), &absent, FACTS, "a", 1, &Device::flex());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`score`") && error.contains("norm"),
        "{error}"
    );
    let error = config("targets", &[])
        .validate("x")
        .unwrap_err()
        .to_string();
    assert!(error.contains("oft_only"), "{error}");
}

#[test]
fn own_values_count_only_while_their_adapter_is_active_or_merged() {
    let base = Model::new().forward();
    let mut model = Model::new();
    attach(
        &mut model,
        &config("all", &["table", "norm", "head", "conv"]),
        "a",
    );
    let adapted = model.forward();
    assert!(difference(adapted.clone(), base.clone()) > 0.1);

    adapters::disable_all(&mut model);
    assert_eq!(difference(model.forward(), base.clone()), 0.0);
    adapters::activate(&mut model, &["a"]).unwrap();
    assert_eq!(difference(model.forward(), adapted.clone()), 0.0);

    adapters::merge(&mut model).unwrap();
    assert!(difference(model.forward(), adapted.clone()) < 1e-5);
    assert!(adapters::active(&model).is_empty());
    adapters::unmerge(&mut model).unwrap();
    assert!(difference(model.forward(), adapted) < 1e-5);
    adapters::delete(&mut model, "a").unwrap();
    assert!(difference(model.forward(), base) < 1e-5);
}

#[test]
fn biases_of_several_adapters_add_up() {
    let mut model = Model::new();
    for name in ["a", "bb"] {
        attach(&mut model, &config("all", &[]), name);
    }
    let bias = |layer: &Linear, names: &[&str]| {
        let base = layer.bias().unwrap();
        let own = names.iter().map(|name| {
            let slot = layer.adapters().get(name).unwrap();
            slot.own_named("bias").unwrap().value().reshape(base.dims()) - base.clone()
        });
        own.fold(base.clone(), |sum, change| sum + change)
    };
    for names in [&["a", "bb"][..], &["bb"], &[]] {
        adapters::activate(&mut model, names).unwrap();
        let found = model.head.adapters().bias(model.head.bias().unwrap());
        assert!(
            difference(found, bias(&model.head, names)) < 1e-6,
            "{names:?}"
        );
    }
}

#[test]
fn only_one_adapter_can_have_a_module_whole() {
    let mut model = Model::new();
    let (whole, other) = (config("none", &["head"]), config("none", &["norm"]));
    attach(&mut model, &whole, "a");
    attach(&mut model, &other, "b");
    let device = Device::flex();
    let error = peft::attach(&mut model, &whole, FACTS, "c", 1, &device).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`c`") && text.contains("`a`"), "{text}");
    assert_eq!(adapters::names(&model), ["b", "a"]);
    adapters::activate(&mut model, &["b"]).unwrap();
    attach(&mut model, &whole, "c");
    assert!(adapters::activate(&mut model, &["c", "a"]).is_err());
    assert_eq!(adapters::active(&model), ["b", "c"]);
    adapters::activate(&mut model, &["a", "b"]).unwrap();
}

#[test]
fn a_rotation_applies_to_the_weight_of_another_adapter_and_merges_with_it() {
    let mut model = Model::new();
    attach(&mut model, &config("none", &["head", "conv", "table"]), "a");
    let mut rotating = config("none", &[]);
    rotating.common = CommonConfig::targeting(["head", "conv", "table"]);
    attach(&mut model, &rotating, "b");
    let adapted = model.forward();
    adapters::merge(&mut model).unwrap();
    assert!(difference(model.forward(), adapted.clone()) < 1e-4);
    adapters::unmerge(&mut model).unwrap();
    assert!(difference(model.forward(), adapted.clone()) < 1e-4);
    // One after another, too.
    for name in ["b", "a"] {
        adapters::activate(&mut model, &[name]).unwrap();
        adapters::merge(&mut model).unwrap();
    }
    assert!(difference(model.forward(), adapted) < 1e-4);
    adapters::unmerge(&mut model).unwrap();
    adapters::disable_all(&mut model);
    assert!(difference(model.forward(), Model::new().forward()) < 1e-4);
}

#[test]
fn folders_keep_own_values_and_a_strength_scales_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("all", &["table", "norm"]);
    let mut model = Model::new();
    attach(&mut model, &config, "a");
    peft::save(&model, &config, "a", folder.path()).unwrap();
    let saved = peft::AdapterFolder::open(folder.path(), &Families::linked().unwrap()).unwrap();
    assert_eq!(saved.config().to_json()["inference_mode"], true);
    let with = |strength: f64| {
        let mut model = Model::new();
        let device = Device::flex();
        peft::attach_folder(&mut model, &saved, strength, FACTS, "b", &device).unwrap();
        model
    };
    let same = with(1.0);
    assert_eq!(difference(same.forward(), model.forward()), 0.0);
    assert_eq!(peft::trained(&same, "b"), peft::trained(&model, "a"));
    let none = with(0.0).forward();
    assert!(difference(none, Model::new().forward()) < 1e-6);
    let half = with(0.5);
    let value = half.norm.adapters().own_weight().unwrap().value();
    let full = same.norm.adapters().own_weight().unwrap().value();
    let base = half.norm.weight().clone().unsqueeze::<2>();
    assert!(difference(value, (full + base) * 0.5) < 1e-6);
}

#[test]
fn own_values_train_and_are_counted() {
    let autodiff = Device::flex().autodiff();
    let mut model = Model::new();
    let (_, all) = trainable_parameters(&model);
    let config = config("all", &["table", "norm", "head"]);
    peft::attach(&mut model, &config, FACTS, "a", 1, &autodiff).unwrap();
    let (rotation, biases) = (6, 8 + 8);
    let whole = 40 + 4 + (5 * 8 + 5);
    let expected = (rotation + biases + whole, all + rotation + whole);
    assert_eq!(trainable_parameters(&model), expected);
    let gradients = model.forward().powi_scalar(2).sum().backward();
    for (path, layer) in model.layers() {
        for slot in layer.adapters().slots() {
            for param in slot.params() {
                let gradient = param.gradient(&gradients);
                let gradient = gradient.unwrap_or_else(|| panic!("{path}.{}", param.name()));
                let size = gradient.abs().sum().into_scalar::<f32>();
                assert!(size > 1e-4, "{path}.{}", param.name());
            }
        }
    }
}

#[test]
fn the_row_of_the_padding_does_not_train() {
    let autodiff = Device::flex().autodiff();
    let mut model = Model::new();
    model.table = model.table.with_padding(Some(3));
    let before = model.forward();
    let config = config("none", &["table"]);
    peft::attach(&mut model, &config, FACTS, "a", 1, &autodiff).unwrap();
    let adapted = model.table.adapters().own_weight().unwrap().param().clone();
    let gradients = model.forward().powi_scalar(2).sum().backward();
    let gradient = adapted.gradient(&gradients).unwrap().reshape([10, 4]);
    let sizes = gradient.abs().sum_dim(1).into_data();
    let sizes: Vec<bool> = sizes.iter::<f32>().map(|size| size > 0.0).collect();
    let used = [0, 1, 2, 9];
    assert_eq!(
        sizes,
        (0..10).map(|id| used.contains(&id)).collect::<Vec<_>>()
    );
    adapters::disable_all(&mut model);
    assert_eq!(difference(model.forward(), before), 0.0);
}

#[test]
fn values_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let all = config("all", &["norm"]);
    let mut model = Model::new();
    attach(&mut model, &all, "a");
    let load = |config: &OftConfig| {
        peft::save(&model, &all, "a", folder.path()).unwrap();
        let text = config.to_json().to_string();
        std::fs::write(folder.path().join(peft::CONFIG), text).unwrap();
        let device = Device::flex();
        let mut model = Model::new();
        let loaded = peft::load(
            &mut model,
            folder.path(),
            &Families::linked().unwrap(),
            FACTS,
            "b",
            &device,
        );
        (loaded.map(drop).map_err(|e| e.to_string()), model)
    };
    let missing = load(&config("all", &["norm", "head"])).0.unwrap_err();
    assert!(
        missing.contains("`base_model.model.head.weight` is missing"),
        "{missing}"
    );
    let unused = load(&config("all", &[])).0.unwrap_err();
    assert!(unused.contains("norm.weight` belongs to no"), "{unused}");
    let unused = load(&config("oft_only", &["norm"])).0.unwrap_err();
    assert!(unused.contains("bias` belongs to no"), "{unused}");
    assert!(load(&all).0.is_ok());
    let matrix = Matrix::new(model.norm.values("weight"), [1, 4]);
    assert_eq!(model.norm.base_weight(), matrix);
}
