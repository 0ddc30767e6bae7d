//! Adapters of quantized embedding tables that are the output head, too.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::tempdir;

use super::loss;
use super::trained::config;
use crate::common::{arg, fixture, good, json_of};

/// MLX's model with a quantized table that is the head, too.
fn mlx(work: &Path) -> PathBuf {
    let model = work.join("mlx");
    fs::create_dir(&model).expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        let from = qoft_fixtures::path("schemes/mlx/tied4").join(name);
        fs::copy(from, model.join(name)).expect("a file");
    }
    model
}

/// Layers of the table and of the head, with what `qoft inspect` says of them.
fn tables(model: &Path) -> Vec<(String, String, String)> {
    let layers = json_of(&["inspect", arg(model)])["layers"].clone();
    let layers = layers.as_array().expect("layers").iter();
    let tables = layers.filter(|layer| !layer["name"].as_str().unwrap().contains("layers"));
    let text = |layer: &serde_json::Value, key: &str| layer[key].as_str().unwrap().to_owned();
    let tables = tables.map(|l| (text(l, "name"), text(l, "backend"), text(l, "format")));
    tables.collect()
}

/// Merges, and compares the merged model with the adapted one: the head is the table as it was. Returns the
/// heads of the merges into dense weights and into the scheme.
#[track_caller]
fn check(model: &Path, work: &Path) -> Vec<(String, String, String)> {
    let rows: Vec<String> = (0..6u32)
        .map(|row| {
            let ids: Vec<u32> = (0..20).map(|i| (row * 37 + i * i * 5) % 90).collect();
            json!({ "input_ids": ids }).to_string()
        })
        .collect();
    let data = work.join("rows.jsonl");
    fs::write(&data, rows.join("\n")).expect("a data file");
    let output = work.join("adapter");
    let args = ["train", "--model", arg(model), "--data", arg(&data)];
    let more = [
        "--output",
        arg(&output),
        "--target-modules",
        "embed_tokens,q_proj",
    ];
    let steps = [
        "--max-steps",
        "3",
        "--learning-rate",
        "0.05",
        "--oft-block-size",
        "16",
    ];
    good(&[&args[..], &more, &steps].concat());
    let adapter = arg(&output);
    let (before, adapted) = (
        loss(arg(model), &data, &[]),
        loss(arg(model), &data, &[adapter]),
    );
    assert!((before - adapted).abs() > 2e-3, "{before} {adapted}");
    let mut heads = Vec::new();
    for (name, more, bound) in [
        ("dense", &["--dequantize", "--dtype", "float32"][..], 2e-6),
        ("other", &["--quantize", "bnb-8bit"], 0.01),
        // The table and the projections are rounded again.
        ("same", &["--min-kept", "0"], 0.02),
    ] {
        let output = work.join(name);
        let args = ["merge", "--model", arg(model), "--adapter", adapter];
        let run = good(&[&args[..], &["--output", arg(&output)], more].concat());
        assert!(
            run.stderr
                .contains("the head is written as `lm_head.weight`")
        );
        let found = loss(arg(&output), &data, &[]);
        let text = format!("{name}: {found}, adapted {adapted}, before {before}");
        assert!((found - adapted).abs() < bound, "{text}");
        heads.extend(tables(&output).into_iter().filter(|t| t.0 == "lm_head"));
    }
    heads.remove(1);
    heads
}

#[test]
fn a_head_that_was_a_quantized_table_stays_as_it_was() {
    let work = tempdir().expect("a folder");
    let mlx = mlx(work.path());
    let heads = check(&mlx, work.path());
    assert_eq!((&*heads[0].1, &*heads[0].2), ("dense", "f32"));
    assert_eq!((&*heads[1].1, &*heads[1].2), ("mlx", "int4"));
    assert_eq!(
        config(&work.path().join("same"))["tie_word_embeddings"],
        false
    );
    assert_eq!(tables(&mlx).len(), 1, "the head of the model is its table");
}

#[test]
fn a_head_that_settings_do_not_know_becomes_dense() {
    let work = tempdir().expect("a folder");
    let model = mlx(work.path());
    // Groups of 64 for each layer that there is, and of another size for all others.
    let mut all = config(&model);
    let layers = json_of(&["inspect", arg(&model)])["layers"].clone();
    let stated = all["quantization"].clone();
    for key in ["quantization", "quantization_config"] {
        all[key]["group_size"] = json!(32);
        for layer in layers.as_array().expect("layers") {
            for number in ["0", "1"] {
                let path = layer["name"].as_str().unwrap().replace('*', number);
                all[key][path] = stated.clone();
            }
        }
    }
    fs::write(model.join("config.json"), all.to_string()).expect("a file");
    let heads = check(&model, work.path());
    assert_eq!((&*heads[1].1, &*heads[1].2), ("dense", "f32"));
}

#[test]
fn a_file_gets_the_old_table_as_its_head() {
    let work = tempdir().expect("a folder");
    let dense = fixture("quantize/llama_wide_bf16");
    let file = work.path().join("model.gguf");
    let args = ["export", "--to", "gguf", "--gguf-type", "q8_0"];
    good(&[&args[..], &["--model", &dense, "--output", arg(&file)]].concat());
    let heads = check(&file, work.path());
    assert_eq!((&*heads[0].1, &*heads[0].2), ("dense", "f32"));
    assert_eq!((&*heads[1].1, &*heads[1].2), ("gguf", "Q8_0"));
}
