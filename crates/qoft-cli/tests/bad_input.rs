//! Damaged checkpoints, data and adapters: every command names what is wrong and leaves nothing.

mod common;
#[path = "common/file.rs"]
mod file;

use std::fs;
use std::path::{Path, PathBuf};

use common::{arg, copy_fixture, fixture, names, qoft};
use file::{TensorFile, write_raw};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const MODEL: &str = "models/llama_nf4";
const SHARDED: &str = "models/llama_sharded";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";
/// The commands that read a checkpoint.
const ALL: [&str; 4] = ["inspect", "dequantize", "eval", "train"];
/// Those of them that read the values of a layer.
const LOADING: [&str; 3] = ["dequantize", "eval", "train"];
/// Those of them that build the whole model.
const MODELS: [&str; 2] = ["eval", "train"];
const STATE: &str = "0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4";

/// Runs a command that has to fail, say `needle` and write nothing into `work`.
#[track_caller]
fn refused(args: &[&str], work: &Path, needle: &str) {
    let before = names(work);
    let run = qoft(args);
    let says = &run.stderr;
    assert!(
        matches!(run.code, Some(1 | 2)),
        "{args:?}: {:?} {says}",
        run.code
    );
    assert!(says.contains(needle), "{args:?}: no {needle:?} in {says}");
    assert!(!says.contains("panicked"), "{args:?}: {says}");
    assert_eq!(run.stdout, "", "{args:?}");
    assert_eq!(names(work), before, "{args:?}");
}

/// Damages a copy of a model and runs commands on it.
#[track_caller]
fn damaged(model: &str, commands: &[&str], needle: &str, damage: impl FnOnce(&Path)) {
    let work = tempdir().expect("a folder");
    let folder = copy_fixture(model, work.path(), "model");
    damage(&folder);
    let (model, rows) = (arg(&folder), fixture(ROWS));
    let out = work.path().join("out");
    for command in commands {
        let args = match *command {
            "inspect" => vec!["inspect", model],
            "dequantize" => vec!["dequantize", model, "--output", arg(&out)],
            "eval" => vec!["eval", "--model", model, "--data", &rows],
            _ => vec![
                "train",
                "--model",
                model,
                "--data",
                &rows,
                "--output",
                arg(&out),
            ],
        };
        refused(&args, work.path(), needle);
    }
}

/// Changes one tensor of the quantized model.
#[track_caller]
fn damaged_tensor(commands: &[&str], name: &str, change: impl FnOnce(&mut file::Entry)) {
    damaged(MODEL, commands, name, |folder| {
        TensorFile::open(&folder.join("model.safetensors")).change(name, change);
    });
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("a written file");
}

#[test]
fn missing_shard() {
    let shard = "model-00002-of-00003.safetensors";
    damaged(SHARDED, &ALL, shard, |folder| {
        fs::remove_file(folder.join(shard)).expect("a removed file");
    });
}

#[test]
fn missing_folder() {
    damaged(MODEL, &ALL, "model", |folder| {
        fs::remove_dir_all(folder).expect("a removed folder");
    });
}

#[test]
fn truncated_files() {
    for keep in [0, 7, 8, 5_000, 100_000] {
        damaged(MODEL, &ALL, "model.safetensors", |folder| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).expect("a file");
            fs::write(&path, &bytes[..keep]).expect("a written file");
        });
    }
}

#[test]
fn absurd_header_lengths() {
    for length in [u64::MAX, u64::MAX - 8, 1 << 62, 1 << 40, 200_000, 0, 1] {
        damaged(MODEL, &ALL, "model.safetensors", |folder| {
            let path = folder.join("model.safetensors");
            let mut bytes = fs::read(&path).expect("a file");
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            fs::write(&path, bytes).expect("a written file");
        });
    }
}

#[test]
fn impossible_headers() {
    let tensor = |shape: Value, offsets: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    for header in [
        json!({"a.weight": tensor(json!([1_u64 << 33, 1_u64 << 33]), json!([0, 8]))}),
        json!({"a.weight": tensor(json!([u64::MAX, 2]), json!([0, 8]))}),
        json!({"a.weight": tensor(json!([2, 1]), json!([8, 0]))}),
        json!({"a.weight": tensor(json!([2, 1]), json!([0, u64::MAX]))}),
        json!({"a.weight": tensor(json!([-2, 1]), json!([0, 8]))}),
        json!({"a.weight": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}),
        json!(["a.weight"]),
        json!("a.weight"),
    ] {
        damaged(MODEL, &ALL, "model.safetensors", |folder| {
            write_raw(&folder.join("model.safetensors"), &header, &[0; 8]);
        });
    }
}

#[test]
fn index_outside_of_the_folder() {
    for target in ["../outside.safetensors", "/etc/hostname", "..", ""] {
        damaged(SHARDED, &ALL, "model.safetensors.index.json", |folder| {
            let outside = folder
                .parent()
                .expect("a parent")
                .join("outside.safetensors");
            fs::copy(folder.join("model-00001-of-00003.safetensors"), outside).expect("a copy");
            edit_json(&folder.join("model.safetensors.index.json"), |index| {
                let map = index["weight_map"].as_object_mut().expect("a map");
                *map.values_mut().next().expect("a tensor") = target.into();
            });
        });
    }
    damaged(SHARDED, &ALL, "model.safetensors.index.json", |folder| {
        fs::write(folder.join("model.safetensors.index.json"), "{").expect("a written file");
    });
}

#[test]
fn damaged_scales() {
    let absmax = "0.mlp.down_proj.weight.absmax";
    damaged_tensor(&LOADING, absmax, |entry| {
        entry.dtype = "F32".into();
        entry.data = vec![0; 4 * 192];
    });
    damaged_tensor(&LOADING, absmax, |entry| {
        entry.shape = vec![191];
        entry.data.pop();
    });
    damaged_tensor(&LOADING, "0.mlp.down_proj.weight.nested_absmax", |entry| {
        entry.data = f32::NAN.to_le_bytes().to_vec();
    });
    damaged_tensor(&LOADING, "0.mlp.down_proj.weight.quant_map", |entry| {
        entry.data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    damaged_tensor(&LOADING, "0.mlp.down_proj.weight", |entry| {
        entry.shape = vec![6143, 1];
        entry.data.pop();
    });
    damaged(MODEL, &LOADING, absmax, |folder| {
        TensorFile::open(&folder.join("model.safetensors")).remove(absmax);
    });
}

#[test]
fn damaged_quant_state() {
    for (key, value) in [
        ("blocksize", json!(0)),
        ("blocksize", json!(-64)),
        ("blocksize", json!(u64::MAX)),
        ("shape", json!([64, 0])),
        ("shape", json!([u64::MAX, u64::MAX])),
        ("shape", json!([])),
        ("nested_blocksize", json!(0)),
        ("nested_offset", json!("much")),
    ] {
        damaged_tensor(&LOADING, STATE, |entry| {
            let mut state: Value = serde_json::from_slice(&entry.data).expect("JSON");
            state[key] = value;
            entry.data = state.to_string().into_bytes();
            entry.shape = vec![entry.data.len()];
        });
    }
    for text in ["", "no JSON", "[]", "{}", "\u{0}"] {
        damaged_tensor(&LOADING, STATE, |entry| {
            entry.data = text.into();
            entry.shape = vec![text.len()];
        });
    }
}

#[test]
fn config_of_another_model() {
    let set = |key: &'static str, value: Value| {
        move |folder: &Path| edit_json(&folder.join("config.json"), |config| config[key] = value)
    };
    damaged(
        MODEL,
        &MODELS,
        "model.embed_tokens.weight",
        set("hidden_size", json!(128)),
    );
    damaged(
        MODEL,
        &MODELS,
        "gate_proj",
        set("intermediate_size", json!(128)),
    );
    damaged(
        MODEL,
        &MODELS,
        "model.layers.2",
        set("num_hidden_layers", json!(3)),
    );
    for key in [
        "num_attention_heads",
        "num_key_value_heads",
        "hidden_size",
        "head_dim",
        "vocab_size",
    ] {
        for value in [json!(0), json!(-1), json!("four"), json!(u64::MAX)] {
            damaged(MODEL, &MODELS, "", set(key, value));
        }
    }
    damaged(
        MODEL,
        &MODELS,
        "mystery",
        set("model_type", json!("mystery")),
    );
    damaged(MODEL, &ALL, "config.json", |folder| {
        fs::write(folder.join("config.json"), "{\"hidden_size\": ").expect("a written file");
    });
}

#[test]
fn layers_of_an_unknown_method() {
    damaged(MODEL, &ALL, "registered backends: bnb-8bit", |folder| {
        let weight = "self_attn.q_proj.weight";
        TensorFile::open(&folder.join("model.safetensors"))
            .retain(|name| !name.contains(".q_proj.weight."))
            .map(|(name, entry)| {
                if name.ends_with(weight) {
                    *name = name.replace("q_proj.weight", "q_proj.qweight");
                    entry.dtype = "I32".into();
                    entry.shape = vec![entry.data.len() / 4];
                }
            });
    });
}

/// A data file with this content, evaluated and trained on.
#[track_caller]
fn bad_data(content: &str, needle: &str) {
    let work = tempdir().expect("a folder");
    let data = work.path().join("rows.jsonl");
    fs::write(&data, content).expect("a written file");
    let (model, out) = (fixture(MODEL), work.path().join("out"));
    let eval = ["eval", "--model", &model, "--data", arg(&data)];
    refused(&eval, work.path(), needle);
    let train = [
        "train",
        "--model",
        &model,
        "--data",
        arg(&data),
        "--output",
        arg(&out),
    ];
    refused(&train, work.path(), needle);
}

#[test]
fn bad_rows() {
    let good = "{\"input_ids\": [6, 7, 8]}\n";
    bad_data("", "rows.jsonl");
    bad_data("\n\n", "rows.jsonl");
    bad_data(&format!("{good}no JSON\n"), "rows.jsonl, line 2");
    bad_data(&format!("{good}[1, 2]\n"), "rows.jsonl, line 2");
    bad_data(&format!("{good}{{\"input_ids\": [6, 320]}}\n"), "320");
    bad_data(
        &format!("{good}{{\"input_ids\": [6, -1]}}\n"),
        "rows.jsonl, line 2",
    );
    bad_data(
        &format!("{good}{{\"inputs\": [6]}}\n"),
        "rows.jsonl, line 2",
    );
    bad_data("{\"text\": \"words\"}\n", "tokenizer");
}

/// Damages a copy of an adapter and evaluates with it.
#[track_caller]
fn bad_adapter(needle: &str, damage: impl FnOnce(&Path)) {
    let work = tempdir().expect("a folder");
    let adapter = copy_fixture("adapters/all_linear", work.path(), "adapter");
    damage(&adapter);
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let args = [
        "eval",
        "--model",
        &model,
        "--data",
        &rows,
        "--adapter",
        arg(&adapter),
    ];
    refused(&args, work.path(), needle);
}

#[test]
fn bad_adapters() {
    let weights = |folder: &Path| TensorFile::open(&folder.join("adapter_model.safetensors"));
    let tensor = "layers.1.mlp.up_proj.oft_R.weight";
    bad_adapter(tensor, |folder| {
        weights(folder).change(tensor, |entry| {
            entry.data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        });
    });
    bad_adapter(tensor, |folder| {
        weights(folder).change(tensor, |entry| {
            entry.shape[1] -= 1;
            let length = entry.shape.iter().product::<usize>() * 4;
            entry.data.truncate(length);
        });
    });
    bad_adapter(tensor, |folder| {
        weights(folder).change(tensor, |entry| entry.dtype = "I32".into());
    });
    bad_adapter("layers.1.mlp.up_proj", |folder| {
        weights(folder).remove(tensor)
    });
    let config = |folder: &Path| folder.join("adapter_config.json");
    bad_adapter("0.14", |folder| {
        edit_json(&config(folder), |value| {
            let value = value.as_object_mut().expect("an object");
            value.remove("oft_block_size");
            value["r"] = 8.into();
        });
    });
    bad_adapter("LORA", |folder| {
        edit_json(&config(folder), |v| v["peft_type"] = "LORA".into())
    });
    bad_adapter("adapter_config.json", |folder| {
        fs::write(config(folder), "{").expect("a written file");
    });
    bad_adapter("adapter_model.safetensors", |folder| {
        fs::write(folder.join("adapter_model.safetensors"), [255; 64]).expect("a written file");
    });
    bad_adapter("adapter_model.safetensors", |folder| {
        fs::remove_file(folder.join("adapter_model.safetensors")).expect("a removed file");
    });
}

fn folder_with_a_file() -> (TempDir, PathBuf) {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    fs::create_dir(&out).expect("a folder");
    fs::write(out.join("mine"), "text").expect("a written file");
    (work, out)
}

#[test]
fn bad_options() {
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let (work, out) = folder_with_a_file();
    refused(
        &["dequantize", &model, "--output", arg(&out)],
        work.path(),
        arg(&out),
    );
    let train = ["train", "--model", &model, "--data", &rows, "--output"];
    refused(&[&train[..], &[arg(&out)]].concat(), work.path(), arg(&out));
    assert_eq!(names(&out), ["mine"]);
    refused(
        &["quickstart", "--output", arg(&out)],
        work.path(),
        arg(&out),
    );

    let new = work.path().join("new");
    let eval = ["eval", "--model", &model, "--data", &rows];
    for (option, value, needle) in [
        ("--device", "abacus", "abacus"),
        ("--backend-option", "bnb-4bit.fast=maybe", "bnb-4bit.fast"),
        ("--adapter", "/nowhere", "/nowhere"),
        ("--batch-size", "0", "batch-size"),
    ] {
        refused(&[&eval[..], &[option, value]].concat(), work.path(), needle);
    }
    for (option, value, needle) in [
        ("--device", "abacus", "abacus"),
        ("--target-modules", "no_such_layer", "no_such_layer"),
        ("--oft-block-size", "7", "oft_block_size"),
        ("--batch-size", "0", "batch_size"),
        ("--learning-rate", "nan", "learning_rate"),
        ("--optimizer", "lion", "lion"),
        ("--module-dropout", "2", "module_dropout"),
        ("--lr-scheduler", "steep", "steep"),
    ] {
        refused(
            &[&train[..], &[arg(&new), option, value]].concat(),
            work.path(),
            needle,
        );
    }
    refused(&["train", "--data", &rows], work.path(), "--model");
}
