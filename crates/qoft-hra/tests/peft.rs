//! Adapters made by PEFT, and training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{Layer, Linear, Schemes, Walk, adapters, default_device};
use qoft_hra::HraConfig;
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_peft::{self as peft, AdapterConfig, CommonConfig, Families, FamilyKeys, ModelFacts};
use serde_json::Value;

fn expected() -> Value {
    let path = qoft_fixtures::path("hra/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model() -> CausalLm {
    let folder = qoft_fixtures::path("models/llama");
    let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    CausalLm::load(&folder, &schemes, &device, &mut |_, _| ()).unwrap()
}

fn folder(case: &str) -> PathBuf {
    qoft_fixtures::path("hra").join(case)
}

fn load(model: &mut CausalLm, folder: &Path) -> qoft_core::Result<Arc<dyn AdapterConfig>> {
    let (head, device) = ("lm_head", default_device().unwrap());
    peft::load(
        model,
        folder,
        &Families::linked().unwrap(),
        ModelFacts::of_type("llama").with_head(head),
        "default",
        &device,
    )
}

/// Mean loss over all predicted tokens of the rows, each alone.
fn loss(model: &CausalLm, expected: &Value) -> f64 {
    let rows: Vec<Vec<i32>> = serde_json::from_value(expected["rows"].clone()).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for row in rows {
        let mut targets: Vec<_> = row[1..].iter().map(|&id| Some(id as u32)).collect();
        targets.push(None);
        count += row.len() - 1;
        let shape = [1, row.len()];
        let ids =
            Tensor::<2, Int>::from_data(TensorData::new(row, shape), &default_device().unwrap());
        sum += f64::from(model.loss(ids, targets, 1.0).into_scalar::<f32>());
    }
    sum / count as f64
}

#[test]
fn adapted_and_merged_models_have_the_reference_loss() {
    let expected = expected();
    let close = |found: f64, reference: &Value, what: &str| {
        let reference = reference.as_f64().unwrap();
        assert!(
            (found - reference).abs() < 1e-5,
            "{what}: {found} {reference}"
        );
    };
    close(loss(&model(), &expected), &expected["base"], "base");
    for (case, reference) in expected["cases"].as_object().unwrap() {
        let mut model = model();
        load(&mut model, &folder(case)).unwrap();
        close(loss(&model, &expected), reference, case);
        adapters::merge(&mut model).unwrap();
        close(loss(&model, &expected), reference, case);
        adapters::unmerge(&mut model).unwrap();
        adapters::disable_all(&mut model);
        close(loss(&model, &expected), &expected["base"], case);
    }
}

#[test]
fn of_two_adapters_the_input_meets_the_last_one_first() {
    let expected = expected();
    let close = |found: f64, reference: &Value, what: &str| {
        let off = (found - reference.as_f64().unwrap()).abs();
        assert!(off < 1e-5, "{what}: {found} {reference}");
    };
    for pair in expected["pairs"].as_array().unwrap() {
        let mut model = model();
        let (head, device) = ("lm_head", default_device().unwrap());
        let facts = ModelFacts::of_type("llama").with_head(head);
        for name in ["first", "second"] {
            let folder = folder(pair[name].as_str().unwrap());
            peft::load(
                &mut model,
                &folder,
                &Families::linked().unwrap(),
                facts,
                name,
                &device,
            )
            .unwrap();
        }
        assert_eq!(adapters::active(&model), ["first", "second"]);
        close(loss(&model, &expected), &pair["loss"], "adapted");
        adapters::merge(&mut model).unwrap();
        close(loss(&model, &expected), &pair["merged"], "merged");
        adapters::unmerge(&mut model).unwrap();
        assert_eq!(adapters::active(&model), ["first", "second"]);
        adapters::activate(&mut model, &["second"]).unwrap();
        adapters::activate(&mut model, &["first", "second"]).unwrap();
        close(loss(&model, &expected), &pair["loss"], "activated");
        // One after another.
        for name in ["first", "second"] {
            adapters::activate(&mut model, &[name]).unwrap();
            adapters::merge(&mut model).unwrap();
        }
        close(
            loss(&model, &expected),
            &pair["merged"],
            "merged in two steps",
        );
    }
}

#[test]
fn a_saved_adapter_equals_the_one_that_was_loaded() {
    for case in ["even", "odd", "gram_schmidt"] {
        let out = tempfile::tempdir().unwrap();
        let mut first = model();
        let config = load(&mut first, &folder(case)).unwrap();
        peft::save(&first, &*config, "default", out.path()).unwrap();
        let mut second = model();
        let again = load(&mut second, out.path()).unwrap();
        assert_eq!(again.to_json(), config.to_json());
        let trained = |model: &CausalLm| peft::trained(model, "default");
        assert_eq!(trained(&first), trained(&second));
        let read = |path: PathBuf| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let ours = read(out.path().join("adapter_config.json"));
        assert_eq!(ours, read(folder(case).join("adapter_config.json")));
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let refused = |key: &str, json: Value| {
        let error = HraConfig::from_json(json, "file").unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    };
    for r in [0, 1_000_000_000, 1u64 << 63] {
        refused("r", serde_json::json!({"peft_type": "HRA", "r": r}));
    }
    let bias = |bias: &str| serde_json::json!({"peft_type": "HRA", "bias": bias});
    assert!(HraConfig::from_json(bias("hra_only"), "file").is_ok());
    let error = HraConfig::from_json(bias("some"), "file").unwrap_err();
    assert!(
        error.to_string().contains("none, all or hra_only"),
        "{error}"
    );
    refused("peft_type", serde_json::json!({"peft_type": "OFT"}));
    refused(
        "bias",
        serde_json::json!({"peft_type": "HRA", "bias": "own"}),
    );
}

#[derive(Module, Debug, Walk)]
struct One {
    proj: Linear,
}

#[test]
fn an_even_number_of_new_reflections_cancels_and_trains() {
    let device = default_device().unwrap();
    device.seed(3);
    let linear = burn::nn::LinearConfig::new(8, 4).init(&device);
    let x = Tensor::<2>::from_data(
        TensorData::new((0..24).map(|i| (i as f32).sin()).collect(), [3, 8]),
        &device,
    );
    for apply_gs in [false, true] {
        let mut model = One {
            proj: Linear::from(&linear),
        };
        let base = model.proj.forward(x.clone());
        let mut config = HraConfig::default();
        config.r = 4;
        config.apply_gs = apply_gs;
        config.common = CommonConfig::targeting("all-linear");
        let autodiff = device.clone().autodiff();
        peft::attach(
            &mut model,
            &config,
            ModelFacts::default(),
            "default",
            3,
            &autodiff,
        )
        .unwrap();
        let y = model.proj.forward(x.clone());
        let off = (y.clone().inner() - base).abs().max().into_scalar::<f32>();
        assert_eq!(off < 1e-5, !apply_gs, "{off}");
        let gradients = y
            .powi_scalar(2)
            .mul(x.clone().narrow(1, 0, 4).autodiff())
            .sum()
            .backward();
        let slots = model.proj.adapters().slots();
        let gradient = slots[0].params()[0].gradient(&gradients);
        assert!(
            gradient
                .expect("a gradient")
                .abs()
                .sum()
                .into_scalar::<f32>()
                > 1e-3
        );
    }
}
