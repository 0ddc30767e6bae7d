//! What kind a layer is and how its weight is stored is told by the model, and not guessed.

use std::path::Path;

use qoft::core::kernels::FloatFormat;
use qoft::core::{LayerKind, Schemes};
use qoft::models::{Architectures, ModelFolder};
use qoft::peft::{AdapterFolder, Families};
use qoft::{MergeTarget, ScaledAdapter, merge};
use serde_json::{Value, json};

fn model(name: &str, architectures: &Architectures) -> ModelFolder {
    let path = qoft_fixtures::path(&format!("models/{name}"));
    ModelFolder::open(path, architectures).unwrap()
}

/// A copy of an adapter with another value of a key.
fn adapter(name: &str, folder: &Path, key: &str, value: Value) -> ScaledAdapter {
    let from = qoft_fixtures::path(&format!("adapters/{name}"));
    let file = "adapter_model.safetensors";
    std::fs::copy(from.join(file), folder.join(file)).unwrap();
    let file = "adapter_config.json";
    let text = std::fs::read_to_string(from.join(file)).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[key] = value;
    std::fs::write(folder.join(file), config.to_string()).unwrap();
    let folder = AdapterFolder::open(folder, &Families::linked().unwrap());
    ScaledAdapter::new(folder.unwrap(), 1.0)
}

#[test]
fn an_architecture_says_what_its_layers_are_and_names_do_where_nobody_knows_it() {
    let (known, none) = (Architectures::linked(), Architectures::new([]));
    for architectures in [known.unwrap(), none.unwrap()] {
        let llama = model("llama", &architectures);
        assert_eq!(llama.kind("model.embed_tokens"), LayerKind::Embedding);
        assert_eq!(llama.kind("lm_head"), LayerKind::Linear);
        let up = "model.layers.0.mlp.up_proj";
        assert_eq!(llama.source(up).kind(), LayerKind::Linear);
        let is_known = llama.known().is_some();
        assert_eq!(llama.source(up).expected_shape().is_some(), is_known);
        assert_eq!(llama.token_table().unwrap(), "model.embed_tokens");
        assert_eq!(llama.head(), "lm_head");
        let gpt2 = model("gpt2", &architectures);
        for table in ["transformer.wte", "transformer.wpe"] {
            assert_eq!(gpt2.kind(table), LayerKind::Embedding);
        }
        assert_eq!(gpt2.token_table().unwrap(), "transformer.wte");
        // Only the architecture knows that.
        let turned = gpt2.source("transformer.h.0.mlp.c_fc");
        assert_eq!(turned.is_fan_in_fan_out(), is_known);
    }
}

#[test]
fn weights_that_may_be_turned_over_are_refused_where_nobody_says_which() {
    let work = tempfile::tempdir().unwrap();
    let none = Architectures::new([]).unwrap();
    let merged = |architectures: &Architectures, turned: bool| {
        let (folder, output) = (work.path().join("adapter"), work.path().join("out"));
        std::fs::create_dir_all(&folder).unwrap();
        let _ = std::fs::remove_dir_all(&output);
        let turned = json!(turned);
        let adapters = [adapter(
            "dense_all_linear",
            &folder,
            "fan_in_fan_out",
            turned,
        )];
        let model = model("llama", architectures);
        let schemes = Schemes::linked(model.checkpoint()).unwrap();
        let target = MergeTarget::Dense(FloatFormat::F32);
        merge(&model, &schemes, &adapters, target, &output, &|_, _| ())
    };
    let error = merged(&none, true).unwrap_err().to_string();
    assert!(
        error.contains("fan_in_fan_out") && error.contains("not known"),
        "{error}"
    );
    merged(&none, false).unwrap();
    merged(&Architectures::linked().unwrap(), true).unwrap();
}
