//! Damaged checkpoints: every command names what is wrong and leaves nothing.

use std::fs;
use std::path::Path;

use crate::common::file::{Entry, TensorFile, edit_json, refused, write_raw};
use crate::common::{arg, copy_fixture, fixture, qoft};
use serde_json::{Value, json};
use tempfile::tempdir;

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

/// Changes one tensor of the quantized model, whose layer has to be named.
#[track_caller]
fn damaged_layer(name: &str, change: impl FnOnce(&mut Entry)) {
    damaged(MODEL, &LOADING, "model.layers.0.mlp.down_proj", |folder| {
        TensorFile::open(&folder.join("model.safetensors")).change(name, change);
    });
}

/// Changes one tensor of the quantized model, which has to be named.
#[track_caller]
fn damaged_tensor(commands: &[&str], name: &str, change: impl FnOnce(&mut Entry)) {
    damaged(MODEL, commands, name, |folder| {
        TensorFile::open(&folder.join("model.safetensors")).change(name, change);
    });
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
        entry.dtype = "I8".into();
    });
    damaged_layer(absmax, |entry| {
        entry.shape = vec![191];
        entry.data.pop();
    });
    damaged_tensor(&LOADING, "0.mlp.down_proj.weight.nested_absmax", |entry| {
        entry.data = f32::NAN.to_le_bytes().to_vec();
    });
    damaged_tensor(&LOADING, "0.mlp.down_proj.weight.quant_map", |entry| {
        entry.data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    damaged_layer("0.mlp.down_proj.weight", |entry| {
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
        damaged_layer(STATE, |entry| {
            let mut state: Value = serde_json::from_slice(&entry.data).expect("JSON");
            state[key] = value;
            entry.data = state.to_string().into_bytes();
            entry.shape = vec![entry.data.len()];
        });
    }
    for text in ["", "no JSON", "[]", "{}", "\u{0}"] {
        damaged_layer(STATE, |entry| {
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
        TensorFile::open(&folder.join("model.safetensors")).edit(|tensors| {
            tensors.retain(|(name, _)| !name.contains(".q_proj.weight."));
            for (name, entry) in tensors {
                if name.ends_with(".q_proj.weight") {
                    *name = name.replace(".weight", ".qweight");
                    entry.dtype = "I32".into();
                    entry.shape = vec![entry.data.len() / 4];
                }
            }
        });
    });
}

/// Methods that other programs have.
#[test]
fn an_unknown_method_is_named_with_those_that_there_are() {
    for method in ["quanto", "vptq", "spqr", "higgs", "bitnet", "quark"] {
        let needle = format!(
            "qoft has no scheme for the quantization method `{method}`; it has bnb, eetq, aqlm, awq, gptq"
        );
        damaged(MODEL, &ALL, &needle, |folder| {
            edit_json(&folder.join("config.json"), |config| {
                config["quantization_config"] = json!({"quant_method": method});
            });
            TensorFile::open(&folder.join("model.safetensors")).edit(|tensors| {
                tensors.retain(|(name, _)| !name.contains(".q_proj.weight."));
                for (name, entry) in tensors {
                    if name.ends_with(".q_proj.weight") {
                        entry.dtype = "I8".into();
                        entry.shape = vec![entry.data.len()];
                    }
                }
            });
        });
    }
}

#[test]
fn a_model_that_lacks_a_layer_is_not_written() {
    for tensor in ["model.embed_tokens.weight", "model.norm.weight"] {
        damaged(MODEL, &["dequantize", "eval", "train"], tensor, |folder| {
            TensorFile::open(&folder.join("model.safetensors")).remove(tensor);
        });
    }
    damaged(
        MODEL,
        &["dequantize"],
        "model.layers.1.mlp.up_proj",
        |folder| {
            TensorFile::open(&folder.join("model.safetensors"))
                .edit(|tensors| tensors.retain(|(name, _)| !name.contains("layers.1.mlp.up_proj")));
        },
    );
}

#[test]
fn folders_of_other_kinds_are_told_apart() {
    let work = tempdir().expect("a folder");
    let adapter = fixture("adapters/all_linear");
    let rows = fixture(ROWS);
    let eval = |model: &str, needle: &str| {
        refused(
            &["eval", "--model", model, "--data", &rows],
            work.path(),
            needle,
        );
    };
    eval(&adapter, "this is an adapter");
    eval("some-org/some-model", "hf download some-org/some-model");
    let model = fixture(MODEL);
    let with = [
        "eval",
        "--model",
        &model,
        "--data",
        &rows,
        "--adapter",
        &model,
    ];
    refused(&with, work.path(), "this is a model");
}

#[test]
fn pointers_of_git_lfs_are_told_apart() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        damaged(
            MODEL,
            &["eval", "train"],
            "a pointer of Git LFS",
            |folder| {
                fs::write(folder.join(name), pointer).expect("a written file");
            },
        );
    }
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let work = tempdir().expect("a folder");
        let copy = copy_fixture("adapters/all_linear", work.path(), "adapter");
        fs::write(copy.join(name), pointer).expect("a written file");
        let with = [
            "eval",
            "--model",
            &model,
            "--data",
            &rows,
            "--adapter",
            arg(&copy),
        ];
        refused(&with, work.path(), "a pointer of Git LFS");
    }
}

#[test]
fn layers_that_the_model_does_not_have_are_told() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    let rows = fixture(ROWS);
    let said = |needle: &str| {
        for command in [
            &["inspect", arg(&model)][..],
            &["eval", "--model", arg(&model), "--data", &rows],
        ] {
            let run = qoft(command);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert_eq!(
                run.stderr
                    .contains("config.json asks for 1 layers, and the files have 2"),
                needle == "layers",
                "{}",
                run.stderr
            );
            assert_eq!(run.stderr.contains("1 tensors are none of the model's and are not used, the first is `v_head.weight`"), needle == "tensors", "{}", run.stderr);
        }
    };
    said("");
    TensorFile::open(&model.join("model.safetensors")).edit(|tensors| {
        let norm = tensors
            .iter()
            .find(|(name, _)| name == "model.norm.weight")
            .expect("a norm");
        let copy = Entry {
            dtype: norm.1.dtype.clone(),
            shape: norm.1.shape.clone(),
            data: norm.1.data.clone(),
        };
        tensors.push(("v_head.weight".into(), copy));
    });
    said("tensors");
    edit_json(&model.join("config.json"), |config| {
        config["num_hidden_layers"] = json!(1);
    });
    said("layers");
}
