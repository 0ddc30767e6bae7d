//! Tensors that are none of the model's, and numbers that nothing may hold.

use std::path::Path;

use tempfile::tempdir;

use crate::common::file::{Entry, TensorFile, refused};
use crate::common::{self, arg, copy_fixture, fixture, good, json_of, qoft};

const MODEL: &str = "models/llama";
const ROWS: &str = "train/gemma2_all_linear/rows.jsonl";

fn entry(dtype: &str, shape: &[usize], data: &[u8]) -> Entry {
    Entry {
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

fn loss(model: &Path, adapters: &[&str]) -> String {
    format!("{:.5}", common::loss(arg(model), &fixture(ROWS), adapters))
}

#[test]
fn tensors_of_any_kind_beside_the_model_are_kept() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    let plain = loss(&model, &[]);
    let one = 1f32.to_le_bytes();
    let beside = [
        ("extra.count", entry("I64", &[], &7i64.to_le_bytes())),
        ("extra.mask.weight", entry("BOOL", &[2, 2], &[1, 0, 1, 1])),
        ("extra.wide.weight", entry("F64", &[1], &2f64.to_le_bytes())),
        (
            "extra.small.weight",
            entry("F8_E4M3", &[2, 2], &[1, 2, 3, 4]),
        ),
        (
            "extra.open.weight",
            entry("F32", &[1], &f32::INFINITY.to_le_bytes()),
        ),
        (
            "model.layers.0.self_attn.k_proj.k_scale",
            entry("F32", &[1], &one),
        ),
        (
            "model.layers.0.self_attn.q_proj.input_scale",
            entry("F32", &[1], &one),
        ),
        (
            "model.layers.0.mlp.up_proj.lora_A.weight",
            entry("F32", &[1, 1], &one),
        ),
        ("model.norm.bias", entry("F32", &[1], &one)),
    ];
    let names: Vec<&str> = beside.iter().map(|(name, _)| *name).collect();
    TensorFile::open(&model.join("model.safetensors")).edit(|tensors| {
        let beside = beside.into_iter();
        tensors.extend(beside.map(|(name, entry)| (name.to_owned(), entry)));
    });
    assert_eq!(loss(&model, &[]), plain);
    let rows = fixture(ROWS);
    let [adapter, merged, lora, packed, dense] =
        ["adapter", "merged", "lora", "packed", "dense"].map(|name| work.path().join(name));
    let train = ["train", "--data", &rows, "--output", arg(&adapter)];
    let train = [&train[..], &["--oft-block-size=8", "--max-steps=2"]].concat();
    let adapted = ["--adapter", arg(&adapter)];
    let merge = [&["merge", "--output", arg(&merged)][..], &adapted].concat();
    let export = ["export", "--to=lora", "--rank=2", "--output", arg(&lora)];
    let export = [&export[..], &adapted].concat();
    let quantize = ["quantize", "--scheme=bnb-4bit", "--output", arg(&packed)];
    for args in [&train, &merge, &export, &quantize.to_vec()] {
        good(&[&args[..], &["--model", arg(&model)]].concat());
    }
    good(&["dequantize", arg(&model), "--output", arg(&dense)]);
    assert_eq!(loss(&merged, &[]), loss(&model, &[arg(&adapter)]));
    let all = TensorFile::open(&model.join("model.safetensors")).shapes();
    for folder in [&merged, &packed, &dense] {
        let found = TensorFile::open(&folder.join("model.safetensors")).shapes();
        // A scheme would take for its own what is beside a layer that it quantizes.
        let is_kept = |name: &str| folder != &packed || name.starts_with("extra");
        let kept = names.iter().filter(|name| is_kept(name));
        for &name in kept {
            assert_eq!(
                found.get(name),
                all.get(name),
                "{}: {name}",
                folder.display()
            );
        }
    }

    let found = json_of(&["inspect", arg(&model)]);
    let layers = found["layers"].as_array().expect("layers");
    assert!(!layers.iter().any(|layer| layer["name"] == "extra.small"));
}

/// The weight alone would be another one.
#[test]
fn a_scale_of_no_scheme_is_an_error_everywhere() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    TensorFile::open(&model.join("model.safetensors")).edit(|tensors| {
        let name = "model.layers.1.self_attn.q_proj.weight_scale";
        tensors.push((name.into(), entry("F32", &[1], &2f32.to_le_bytes())));
    });
    let (rows, out) = (fixture(ROWS), work.path().join("out"));
    let [model, out] = [arg(&model), arg(&out)];
    for args in [
        &["inspect", model][..],
        &["eval", "--model", model, "--data", &rows],
        &["dequantize", model, "--output", out],
        &[
            "quantize",
            "--model",
            model,
            "--scheme=bnb-8bit",
            "--output",
            out,
        ],
        &["export", "--to=gguf", "--model", model, "--output", out],
    ] {
        refused(args, work.path(), "layers.1.self_attn.q_proj");
    }
}

#[test]
fn nothing_infinite_is_written() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    let file = model.join("model.safetensors");
    TensorFile::open(&file).change("model.norm.weight", |tensor| {
        tensor.data[..4].copy_from_slice(&1e5f32.to_le_bytes());
    });
    let out = work.path().join("out");
    let to = ["--output", arg(&out)];
    let dequantize = [&["dequantize", arg(&model), "--dtype=f16"][..], &to].concat();
    refused(&dequantize, work.path(), "`model.norm.weight`");
    let quantize = ["quantize", "--model", arg(&model), "--scheme=bnb-4bit"];
    let quantize = [&quantize[..], &["--quantize-dtype=float16"], &to].concat();
    refused(&quantize, work.path(), "model.norm.weight");

    let rows = fixture(ROWS);
    let adapter = work.path().join("adapter");
    let train = ["train", "--model", arg(&model), "--data", &rows];
    let options = [
        "--oft-block-size=8",
        "--max-steps=1",
        "--output",
        arg(&adapter),
    ];
    let run = qoft(&[&train[..], &options].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // A layer that the adapter does not change.
    TensorFile::open(&file).change("mlp.up_proj.weight", |tensor| {
        tensor.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let merge = ["merge", "--model", arg(&model), "--adapter", arg(&adapter)];
    let merge = [&merge[..], &to].concat();
    refused(&merge, work.path(), "mlp.up_proj.weight");
}

#[test]
fn a_tied_head_may_be_stored_in_place_of_the_table() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    let before = loss(&model, &[]);
    TensorFile::open(&model.join("model.safetensors")).edit(|tensors| {
        let table = tensors.iter_mut().find(|(name, _)| name.contains("embed"));
        table.expect("a table").0 = "lm_head.weight".to_owned();
    });
    assert_eq!(loss(&model, &[]), before);
}
