//! Losses, logits and greedy texts of transformers, and the errors of configurations that it would
//! compute otherwise.

use std::path::{Path, PathBuf};

// The schemes come with the program.
use qoft_cli as _;
use qoft_core::burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{Result, Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_stablelm as _;
use serde_json::{Value, json};

const CASES: [&str; 3] = ["dense", "options", "nf4"];

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn open(folder: &Path) -> ModelFolder {
    let architectures = Architectures::linked().expect("architectures");
    ModelFolder::open(folder, &architectures).expect("a model folder")
}

fn load(folder: &Path) -> Result<CausalLm> {
    let folder = open(folder);
    let schemes = Schemes::linked(folder.checkpoint())?;
    CausalLm::load(&folder, &schemes, &default_device()?, &mut |_, _| ())
}

fn reference(name: &str) -> Value {
    let file = std::fs::read(case(name).join("reference.json")).expect("reference.json");
    serde_json::from_slice(&file).expect("JSON")
}

fn rows(value: &Value) -> Vec<Vec<i32>> {
    serde_json::from_value(value.clone()).expect("rows of ids")
}

fn tensor(ids: &[i32]) -> Tensor<2, Int> {
    let data = TensorData::new(ids.to_vec(), [1, ids.len()]);
    Tensor::from_data(data, &default_device().expect("a device"))
}

/// Mean loss over all predicted tokens of the rows, each alone.
fn loss(model: &CausalLm, rows: &[Vec<i32>]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for row in rows {
        let targets = row[1..].iter().map(|&id| u32::try_from(id).ok());
        let loss = model.loss(tensor(row), targets.chain([None]).collect(), 1.0);
        sum += f64::from(loss.into_scalar::<f32>());
        count += row.len() - 1;
    }
    sum / count as f64
}

#[test]
fn losses_and_logits_equal_transformers() {
    for name in CASES {
        let (model, reference) = (load(&case(name)).expect("a model"), reference(name));
        let rows = rows(&reference["rows"]);
        let expected = reference["loss"].as_f64().expect("a loss");
        let found = loss(&model, &rows);
        let off = (found - expected).abs() / expected;
        assert!(off < 1e-5, "{name}: loss {found}, expected {expected}");

        let logits = model.last_logits(tensor(&rows[0]), None).into_data();
        let expected = reference["logits"].as_array().expect("logits");
        assert_eq!(logits.shape()[..], [1, expected.len()]);
        for (found, expected) in logits.iter::<f64>().zip(expected) {
            let expected = expected.as_f64().expect("a logit");
            assert!(
                (found - expected).abs() < 1e-4,
                "{name}: {found} {expected}"
            );
        }
    }
}

#[test]
fn texts_are_those_of_transformers_with_a_cache_and_without() {
    for name in CASES {
        let (model, reference) = (load(&case(name)).expect("a model"), reference(name));
        let ids = |key: &str| -> Vec<i32> {
            serde_json::from_value(reference[key].clone()).expect("ids")
        };
        let (prompt, expected) = (ids("prompt"), ids("generated"));
        let best = |logits: Tensor<2>| logits.argmax(1).into_scalar::<i32>();
        let (mut text, mut cache) = (prompt.clone(), model.new_cache());
        let mut next = best(model.last_logits(tensor(&prompt), Some(&mut cache)));
        for &expected in &expected {
            let whole = best(model.last_logits(tensor(&text), None));
            assert_eq!((next, whole), (expected, expected), "{name} after {text:?}");
            text.push(next);
            next = best(model.last_logits(tensor(&[next]), Some(&mut cache)));
        }
        assert_eq!(cache.len(), text.len());
    }
}

/// The error that a model of another configuration gives.
fn refused(key: &str, value: Value) -> String {
    let work = tempfile::tempdir().expect("a folder");
    let weights = "model.safetensors";
    std::fs::copy(case("dense").join(weights), work.path().join(weights)).expect("a copy");
    let config = std::fs::read(case("dense").join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config[key] = value;
    std::fs::write(work.path().join("config.json"), config.to_string()).expect("a written file");
    load(work.path())
        .map(drop)
        .expect_err("an error")
        .to_string()
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    for (key, value, reason) in [
        ("hidden_act", json!("relu2"), "`relu2` is not supported"),
        ("num_key_value_heads", json!(3), "does not divide"),
        ("intermediate_size", Value::Null, "is missing"),
        (
            "rope_parameters",
            json!({"rope_type": "spiral"}),
            "`spiral`",
        ),
        ("intermediate_size", json!(50), "mlp.gate_proj"),
        ("num_hidden_layers", json!(3), "layers.2.self_attn.q_proj"),
        (
            "use_qkv_bias",
            json!(true),
            "layers.0.self_attn.q_proj.bias",
        ),
        ("qk_layernorm", json!(true), "not supported"),
    ] {
        let error = refused(key, value);
        assert!(error.contains(reason), "{key}: {error}");
    }
}
