//! What `quantization_config` says, and what holds where it says nothing.

use std::path::Path;

use qoft_block_fp8::BlockFp8;
use qoft_core::{Checkpoint, LayerSource, LoadOptions, QuantBackend};
use serde_json::{Value, json};

/// Layers of 128 × 128 blocks, under another configuration.
fn with_config<T>(config: &Value, f: impl FnOnce(&LayerSource) -> T) -> T {
    let checkpoints = "../../crates/qoft-fixtures/data/schemes/fp8/block128_edge";
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(checkpoints);
    let folder = tempfile::tempdir().expect("a folder");
    let [from, to] = [&from, folder.path()].map(|folder| folder.join("model.safetensors"));
    std::fs::copy(from, to).expect("a copied file");
    let config = json!({ "quantization_config": config }).to_string();
    std::fs::write(folder.path().join("config.json"), config).expect("a written file");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    f(&LayerSource::new(&checkpoint, "edge"))
}

#[test]
fn blocks_are_128_by_128_unless_said_otherwise() {
    let config = json!({"quant_method": "fp8"});
    let loaded = with_config(&config, |layer| {
        assert!(BlockFp8.claim(layer));
        BlockFp8.load(layer, &LoadOptions::default())
    });
    assert_eq!(loaded.expect("a layer").weight.info().group_size, Some(128));
}

#[test]
fn impossible_blocks_are_refused() {
    let sizes = [json!([0, 128]), json!([128]), json!(128), json!([128, -1])];
    for size in sizes {
        let config = json!({"quant_method": "fp8", "weight_block_size": size});
        let loaded = with_config(&config, |layer| {
            BlockFp8.load(layer, &LoadOptions::default())
        });
        let error = loaded.map(|_| ()).expect_err("an error").to_string();
        assert!(error.contains("weight_block_size"), "{error}");
    }
    // Scales for blocks, where one scale is expected.
    let config = json!({"quant_method": "fp8", "weight_block_size": null});
    let loaded = with_config(&config, |layer| {
        BlockFp8.load(layer, &LoadOptions::default())
    });
    let error = loaded.map(|_| ()).expect_err("an error").to_string();
    assert!(error.contains("edge.weight_scale_inv"), "{error}");
}

#[test]
fn other_schemes_with_such_tensors_are_not_claimed() {
    for method in ["auto-round", "fbgemm_fp8"] {
        let config = json!({ "quant_method": method });
        assert!(!with_config(&config, |layer| BlockFp8.claim(layer)));
    }
}
