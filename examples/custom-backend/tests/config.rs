//! What `quantization_config` says, and what holds where it says nothing.

use std::path::Path;

use qoft_bitnet::REGISTRATION;
use qoft_core::{
    BackendOptions, Checkpoint, ClaimedLayer, LayerSource, LoadedLinear, Purpose, Registry, Result,
};
use serde_json::{Value, json};

/// A layer under another configuration, if it is claimed.
fn with_config<T>(config: &Value, f: impl FnOnce(Option<ClaimedLayer>) -> T) -> Result<T> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/layers");
    let folder = tempfile::tempdir().expect("a folder");
    let [from, to] = [&from, folder.path()].map(|folder| folder.join("model.safetensors"));
    std::fs::copy(from, to).expect("a copied file");
    let config = json!({ "quantization_config": config }).to_string();
    std::fs::write(folder.path().join("config.json"), config).expect("a written file");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let registry = Registry::new([&REGISTRATION]).expect("a registry");
    let schemes = registry.open(&checkpoint, &BackendOptions::default())?;
    let layer = schemes.claim(LayerSource::new(&checkpoint, "small", None));
    Ok(f(layer))
}

fn load(config: &Value) -> Result<LoadedLinear> {
    with_config(config, |layer| {
        layer.expect("a claimed layer").load(Purpose::Dequantize)
    })?
}

/// The largest weight, which is the scale or its inverse.
fn largest(config: &Value) -> f32 {
    let loaded = load(config).expect("a layer");
    let [rows, columns] = loaded.weight.shape();
    let mut weights = vec![0.0; rows * columns];
    loaded.weight.decode_tile(0..rows, 0..columns, &mut weights);
    weights.into_iter().fold(0.0, f32::max)
}

#[test]
fn the_class_of_layers_says_what_a_scale_is() {
    let divided = largest(&json!({"quant_method": "bitnet"}));
    let named = json!({"quant_method": "bitnet", "linear_class": "bitlinear"});
    assert_eq!(largest(&named), divided);
    let multiplied = json!({"quant_method": "bitnet", "linear_class": "autobitlinear"});
    assert!((largest(&multiplied) * divided - 1.0).abs() < 1e-6);
}

#[test]
fn what_would_compute_something_else_is_refused() {
    for (key, value) in [
        ("linear_class", json!("ternary")),
        ("linear_class", json!(1)),
        ("use_rms_norm", json!(true)),
        ("use_rms_norm", json!("yes")),
        ("quantization_mode", json!("online")),
    ] {
        let config = json!({"quant_method": "bitnet", key: value});
        let error = load(&config).expect_err("an error").to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn other_schemes_with_such_tensors_are_not_claimed() {
    for method in ["compressed-tensors", "fbgemm_fp8"] {
        let config = json!({ "quant_method": method });
        assert!(with_config(&config, |layer| layer.is_none()).expect("a registry"));
    }
}
