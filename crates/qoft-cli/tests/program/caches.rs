//! Scales of quantized caches in files of several schemes: nothing is computed with them, and they stay
//! where their scheme stays.

use std::path::Path;

use serde_json::json;
use tempfile::tempdir;

use crate::common::file::{Entry, TensorFile, edit_json};
use crate::common::{self, arg, fixture, good};

const ROWS: &str = "train/gemma2_all_linear/rows.jsonl";
/// As vLLM's readers, llm-compressor, AutoFP8 and modelopt name them.
const SCALES: [&str; 5] = [
    "model.layers.0.self_attn.k_scale",
    "model.layers.0.self_attn.v_scale",
    "model.layers.1.self_attn.k_proj.k_scale",
    "model.layers.1.self_attn.v_proj.v_scale",
    "model.layers.1.self_attn.v_proj.output_scale",
];

fn loss(model: &Path, adapters: &[&str]) -> f64 {
    common::loss(arg(model), &fixture(ROWS), adapters)
}

fn scales_of(folder: &Path) -> usize {
    let shapes = TensorFile::open(&folder.join("model.safetensors")).shapes();
    let is_scale = |name: &&&str| shapes.contains_key(**name);
    SCALES.iter().filter(is_scale).count()
}

fn check(scheme: &str, skip: &str) {
    let work = tempdir().expect("a folder");
    let rows = fixture(ROWS);
    let [model, adapter, merged, dense, other] =
        ["model", "adapter", "merged", "dense", "other"].map(|name| work.path().join(name));
    let quantize = ["quantize", "--model", &fixture("models/llama")];
    let quantize = [
        &quantize[..],
        &["--scheme", scheme, "--quantize-skip", skip],
    ]
    .concat();
    good(&[&quantize[..], &["--output", arg(&model)]].concat());
    let plain = loss(&model, &[]);
    TensorFile::open(&model.join("model.safetensors")).edit(|tensors| {
        tensors.extend(SCALES.map(|name| {
            let scale = Entry {
                dtype: "F32".to_owned(),
                shape: vec![1],
                data: 0.5f32.to_le_bytes().to_vec(),
            };
            (name.to_owned(), scale)
        }));
    });
    edit_json(&model.join("config.json"), |config| {
        config["quantization_config"]["kv_cache_scheme"] =
            json!({"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": false});
    });

    assert_eq!(loss(&model, &[]), plain, "{scheme}");
    let model_args = ["--model", arg(&model)];
    let train = ["train", "--data", &rows, "--output", arg(&adapter)];
    let train = [&train[..], &["--oft-block-size=8", "--max-steps=2"]].concat();
    let run = good(&[&train[..], &model_args].concat());
    let told = "none of the model's";
    assert!(!run.stderr.contains(told), "{scheme}: {}", run.stderr);
    assert!(!good(&["inspect", arg(&model)]).stderr.contains(told));

    let merge = ["merge", "--adapter", arg(&adapter), "--min-kept=0"];
    let merge = [&merge[..], &model_args].concat();
    good(&[&merge[..], &["--output", arg(&merged)]].concat());
    assert_eq!(scales_of(&merged), SCALES.len(), "{scheme}");
    let config = common::adapter::json(&merged.join("config.json"));
    assert!(config["quantization_config"]["kv_cache_scheme"].is_object());
    let into = ["--output", arg(&other), "--quantize=bnb-8bit"];
    good(&[&merge[..], &into].concat());
    good(&["dequantize", arg(&model), "--output", arg(&dense)]);
    for folder in [&other, &dense] {
        assert_eq!(scales_of(folder), 0, "{scheme}: {}", folder.display());
        let config = std::fs::read_to_string(folder.join("config.json")).expect("a configuration");
        assert!(!config.contains("kv_cache"), "{scheme}: {config}");
    }
    assert_eq!(loss(&dense, &[]), plain, "{scheme}");
}

#[test]
fn scales_of_caches_are_neither_used_nor_lost() {
    for scheme in [
        "compressed-tensors,num_bits=8,type=float",
        "fp8,strategy=channel",
        "modelopt,quant_algo=FP8_PER_CHANNEL_PER_TOKEN",
    ] {
        check(scheme, "lm_head");
        // Beside layers that stay dense.
        check(scheme, "lm_head,k_proj,v_proj");
    }
}
