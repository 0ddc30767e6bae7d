//! What `quantization_config` says, and what holds where it says nothing.

use std::path::Path;

use qoft_block_fp8::REGISTRATION;
use qoft_core::{
    BackendOptions, Checkpoint, ClaimedLayer, LayerSource, LoadedLinear, Purpose, Registry, Result,
};
use serde_json::{Value, json};

/// A layer of 128 × 128 blocks under another configuration, if it is claimed.
fn with_config<T>(config: &Value, f: impl FnOnce(Option<ClaimedLayer>) -> T) -> T {
    let checkpoints = "../../crates/qoft-fixtures/data/schemes/fp8/block128_edge";
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(checkpoints);
    let folder = tempfile::tempdir().expect("a folder");
    let [from, to] = [&from, folder.path()].map(|folder| folder.join("model.safetensors"));
    std::fs::copy(from, to).expect("a copied file");
    let config = json!({ "quantization_config": config }).to_string();
    std::fs::write(folder.path().join("config.json"), config).expect("a written file");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let registry = Registry::new([&REGISTRATION]).expect("a registry");
    let schemes = registry.open(&checkpoint, &BackendOptions::default());
    let schemes = schemes.expect("schemes");
    f(schemes.claim(LayerSource::new(&checkpoint, "edge", None)))
}

fn load(config: &Value) -> Result<LoadedLinear> {
    with_config(config, |layer| {
        layer.expect("a claimed layer").load(Purpose::Forward)
    })
}

#[test]
fn blocks_are_128_by_128_unless_said_otherwise() {
    let loaded = load(&json!({"quant_method": "fp8"})).expect("a layer");
    assert_eq!(loaded.weight.info().group_size, Some(128));
}

#[test]
fn impossible_blocks_are_refused() {
    let sizes = [json!([0, 128]), json!([128]), json!(128), json!([128, -1])];
    for size in sizes {
        let config = json!({"quant_method": "fp8", "weight_block_size": size});
        let error = load(&config).expect_err("an error").to_string();
        assert!(error.contains("weight_block_size"), "{error}");
    }
    // Scales for blocks, where one scale is expected.
    let config = json!({"quant_method": "fp8", "weight_block_size": null});
    let error = load(&config).expect_err("an error").to_string();
    assert!(error.contains("edge.weight_scale_inv"), "{error}");
}

#[test]
fn other_schemes_with_such_tensors_are_not_claimed() {
    for method in ["auto-round", "fbgemm_fp8"] {
        let config = json!({ "quant_method": method });
        assert!(with_config(&config, |layer| layer.is_none()));
    }
}
