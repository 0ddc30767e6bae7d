//! Bad data, adapters and options: every command names what is wrong and leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::file::{TensorFile, edit_json, refused};
use crate::common::{arg, copy_fixture, fixture, names};
use crate::resume::Training;
use tempfile::{TempDir, tempdir};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

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
    bad_adapter("registered: BOFT, HRA, OFT", |folder| {
        edit_json(&config(folder), |v| v["peft_type"] = "VERA".into())
    });
    bad_adapter("oft_only", |folder| {
        edit_json(&config(folder), |v| v["bias"] = "targets".into())
    });
    for terms in [1_000_000_000, 1u64 << 63] {
        bad_adapter("`num_cayley_neumann_terms`", |folder| {
            edit_json(&config(folder), |v| {
                v["num_cayley_neumann_terms"] = terms.into()
            })
        });
    }
    bad_adapter("write a simpler expression", |folder| {
        edit_json(&config(folder), |v| {
            v["target_modules"] = r"(?:(\w|\.)*\1?)*x".into()
        })
    });
    bad_adapter("lm_head.weight` is missing", |folder| {
        edit_json(&config(folder), |v| {
            v["modules_to_save"] = vec!["lm_head"].into()
        })
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
        ("--batch-size", "0", "batch_size"),
        ("--compute-dtype", "f16", "give bf16, f32 or auto"),
    ] {
        refused(&[&eval[..], &[option, value]].concat(), work.path(), needle);
    }
    for (option, value, needle) in [
        ("--device", "abacus", "abacus"),
        ("--target-modules", "no_such_layer", "no_such_layer"),
        ("--batch-size", "0", "batch_size"),
        ("--learning-rate", "nan", "learning-rate"),
        ("--optimizer", "adagrad", "muon"),
        ("--module-dropout", "2", "module_dropout"),
        ("--lr-scheduler", "steep", "--lr-scheduler steep"),
        ("--activation-dtype", "f8", "--activation-dtype f8"),
        ("--compute-dtype", "f8", "expected f32, bf16 or auto"),
        ("--peft-type", "vera", "registered: BOFT, HRA, OFT"),
        ("--bias", "some", "oft_only"),
        ("--modules-to-save", "score", "score"),
        ("--modules-to-save", "o_proj", "quantized"),
        ("--adapter", "/nowhere", "/nowhere"),
        ("--adapter-option", "apply_GS=true", "apply_GS"),
        ("--adapter-option", "r", "KEY=VALUE"),
    ] {
        refused(
            &[&train[..], &[arg(&new), option, value]].concat(),
            work.path(),
            needle,
        );
    }
    refused(&["train", "--data", &rows], work.path(), "--model");
    let config = work.path().join("options.yaml");
    fs::write(&config, "batch_size: many\n").expect("a written file");
    let from_file = ["train", "--config", arg(&config)];
    refused(&from_file, work.path(), "options.yaml: --batch-size many");
    for (name, folder) in [
        ("org/name", "hf download org/name"),
        (&*model, "this is a model"),
    ] {
        for option in ["--adapter", "--start-from"] {
            let train = [&train[..], &[arg(&new), option, name]].concat();
            refused(&train, work.path(), folder);
        }
    }
}

#[test]
fn a_training_says_what_is_wrong_with_its_options() {
    let work = tempdir().expect("a folder");
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let file = work.path().join("file");
    fs::write(&file, "1").expect("a written file");
    let out = work.path().join("out");
    for (output, more, needle) in [
        (
            &out,
            "--learning-rate=-1",
            "`learning_rate`: must be a number from 0 on, not -1",
        ),
        (&out, "--eval-steps=5", "(--eval-data, --val-size)"),
        (&out, "--target-modules=no_proj", "no_proj"),
        (&out, "--oft-block-size=1", "blocks of 1"),
        (&out, "--oft-block-size=0", "both 0"),
        (&out, "--oft-r=4096", "blocks of 1"),
        (&out, "--stage=ppo", "there are sft, dpo"),
        (&file, "--max-steps=1", "a training is a folder"),
    ] {
        let train = [
            "train",
            "--model",
            &model,
            "--data",
            &rows,
            "--output",
            arg(output),
            more,
        ];
        refused(&train, work.path(), needle);
    }
    let config = ["train", "run.yaml", "--output", arg(&out)];
    refused(&config, work.path(), "--config run.yaml");
    let apart = [
        "train",
        "--learning-rate",
        "-1",
        "--model",
        &model,
        "--data",
        &rows,
        "--output",
        arg(&out),
    ];
    refused(&apart, work.path(), "must be a number from 0 on");
}

#[test]
fn targets_that_mean_nothing_are_told() {
    let training = Training::new();
    let out = training.folder("out");
    let names = "--target-modules=q_proj,v_prj";
    let says = training.good(&out, &["--max-steps=1", "--oft-block-size=8", names]);
    assert!(says.contains("the model has no v_prj"), "{says}");
}

#[test]
fn modules_are_left_out_by_their_names() {
    let training = Training::new();
    let out = training.folder("out");
    let names = ["--target-modules=q_proj,v_proj", "--exclude-modules=v_proj"];
    training.good(
        &out,
        &["--max-steps=1", "--oft-block-size=8", names[0], names[1]],
    );
    let config = fs::read_to_string(out.join("adapter_config.json")).expect("a file");
    assert!(
        config.contains("\"exclude_modules\": [\n    \"v_proj\"\n  ]"),
        "{config}"
    );
    let tensors = fs::read(out.join("adapter_model.safetensors")).expect("a file");
    let has = |name: &[u8]| tensors.windows(name.len()).any(|part| part == name);
    assert!(has(b".q_proj.") && !has(b".v_proj."));
}

#[test]
fn rows_too_short_to_predict_anything_are_the_options_fault() {
    let work = tempdir().expect("a folder");
    let (model, rows, out) = (fixture(MODEL), fixture(ROWS), work.path().join("out"));
    for length in ["--max-length=0", "--max-length=1"] {
        let eval = ["eval", "--model", &model, "--data", &rows, length];
        refused(&eval, work.path(), "at least 2 tokens");
        let train = ["train", "--model", &model, "--data", &rows, length];
        let train = [&train[..], &["--output", arg(&out)]].concat();
        refused(&train, work.path(), "at least 2 tokens");
    }
}
