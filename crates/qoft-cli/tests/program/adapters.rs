//! Adapters of all families, frozen ones, biases and whole modules.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fixture, json_of, loss, qoft};
use serde_json::{Value, json};
use tempfile::tempdir;

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 2e-5, "{a} is not {b}");
}

/// Arguments that every training has.
fn train_args<'a>(model: &'a str, data: &'a str, out: &'a Path) -> [&'a str; 7] {
    let out = arg(out);
    ["train", "--model", model, "--data", data, "--output", out]
}

/// Trains for some steps, and gives the loss on the training data after it.
#[track_caller]
fn train(model: &str, data: &str, out: &Path, more: &[&str]) -> f64 {
    let end = [
        "--eval-data",
        data,
        "--max-steps",
        "3",
        "--learning-rate",
        "1e-2",
    ];
    json_of(&[&train_args(model, data, out)[..], &end, more].concat());
    let log = fs::read_to_string(out.join("log.jsonl")).expect("a log");
    let last = log.lines().last().expect("a row");
    let last: Value = serde_json::from_str(last).expect("JSON");
    last["eval_loss"]
        .as_f64()
        .expect("an evaluation at the end")
}

fn config(folder: &Path) -> Value {
    let bytes = fs::read(folder.join("adapter_config.json")).expect("a config");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("adapter_model.safetensors")).expect("weights")
}

/// The rows of the HRA fixtures, and the losses that PEFT found.
fn hra(work: &Path) -> (PathBuf, Value) {
    let expected = fs::read(qoft_fixtures::path("hra/expected.json")).expect("the losses");
    let expected: Value = serde_json::from_slice(&expected).expect("JSON");
    let rows = expected["rows"].as_array().expect("rows").iter();
    let rows: Vec<String> = rows
        .map(|ids| json!({ "input_ids": ids }).to_string())
        .collect();
    let data = work.join("rows.jsonl");
    fs::write(&data, rows.join("\n")).expect("a data file");
    (data, expected)
}

#[test]
fn folders_of_another_family_work_everywhere() {
    let work = tempdir().expect("a folder");
    let (data, expected) = hra(work.path());
    let (model, data) = (fixture("models/llama"), arg(&data));
    for case in ["even", "odd", "gram_schmidt"] {
        let adapter = fixture(&format!("hra/{case}"));
        let reference = expected["cases"][case].as_f64().expect("a loss");
        close(loss(&model, data, &[&adapter]), reference);
        let merged = work.path().join(case);
        let merge = ["merge", "--model", &model, "--adapter", &adapter];
        json_of(&[&merge[..], &["--output", arg(&merged)]].concat());
        close(loss(arg(&merged), data, &[]), reference);
    }
    let even = fixture("hra/even");
    let lora = work.path().join("lora");
    let export = ["export", "--to", "lora", "--rank", "8", "--model", &model];
    json_of(&[&export[..], &["--adapter", &even, "--output", arg(&lora)]].concat());
    assert_eq!(config(&lora)["peft_type"], "LORA");
    let half = format!("{even}=0.5");
    let run = qoft(&[
        "eval",
        "--model",
        &model,
        "--data",
        data,
        "--adapter",
        &half,
    ]);
    assert_eq!(run.code, Some(1));
    for part in ["hra/even", "`strength`: expected 1, found 0.5"] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
}

#[test]
fn another_family_trains() {
    let work = tempdir().expect("a folder");
    let (model, data) = (fixture(MODEL), fixture(ROWS));
    let out = work.path().join("hra");
    let more = [
        "--peft-type",
        "hra",
        "--r",
        "4",
        "--adapter-option",
        "apply_GS=true",
    ];
    let after = train(&model, &data, &out, &more);
    let config = config(&out);
    assert_eq!(config["peft_type"], "HRA");
    assert_eq!(
        (&config["r"], &config["apply_GS"]),
        (&json!(4), &json!(true))
    );
    close(loss(&model, &data, &[arg(&out)]), after);
    // An option of OFT is none of HRA.
    let other = work.path().join("other");
    let args = train_args(&model, &data, &other);
    let run = qoft(&[&args[..], &["--peft-type", "hra", "--coft"]].concat());
    assert_ne!(run.code, Some(0));
    assert!(
        run.stderr.contains("`coft` is no option of HRA"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_adapter_trains_on_top_of_frozen_ones() {
    let work = tempdir().expect("a folder");
    let (model, data) = (fixture(MODEL), fixture(ROWS));
    // COFT moves parameters of what trains before each step; a frozen adapter stays.
    let first = work.path().join("first");
    let more = [
        "--coft",
        "--eps",
        "0.01",
        "--modules-to-save",
        "norm",
        "--bias",
        "all",
    ];
    let before = train(&model, &data, &first, &more);
    let saved = weights(&first);
    let frozen = format!("{}=0.7", arg(&first));
    let second = work.path().join("second");
    let more = [
        "--adapter",
        &frozen,
        "--target-modules",
        "all-linear",
        "--save-steps",
        "2",
    ];
    let after = train(&model, &data, &second, &more);
    assert!(after < before, "{after} {before}");
    close(loss(&model, &data, &[&frozen, arg(&second)]), after);
    let alone = loss(&model, &data, &[arg(&second)]);
    assert!((alone - after).abs() > 1e-4, "{alone} {after}");
    let eval = ["eval", "--model", &model, "--data", &data];
    let says = |adapters: &[&str]| {
        let adapters = adapters.iter().flat_map(|adapter| ["--adapter", adapter]);
        qoft(&eval.into_iter().chain(adapters).collect::<Vec<_>>()).stderr
    };
    let warning = format!("give before it: --adapter {frozen}");
    assert!(says(&[arg(&second)]).contains(&warning));
    let other = says(&[arg(&first), arg(&second)]);
    assert!(other.contains(&warning), "another strength: {other}");
    assert_eq!(says(&[&frozen, arg(&second)]), "");
    assert_eq!(weights(&first), saved);
    let names = String::from_utf8_lossy(&weights(&second)).into_owned();
    assert!(!names.contains("norm.weight") && names.contains("up_proj.oft_R"));

    let checkpoint = second.join("checkpoint-2");
    let resume = [
        "--resume-from",
        arg(&checkpoint),
        "--target-modules",
        "all-linear",
        // Below with another strength.
        "--adapter",
        arg(&first),
    ];
    let args = train_args(&model, &data, &second);
    let run = qoft(&[&args[..], &["--max-steps", "3"], &resume].concat());
    assert!(
        run.stderr.contains("the list of adapters below was"),
        "{}",
        run.stderr
    );
}

#[test]
fn biases_and_whole_modules_train() {
    let work = tempdir().expect("a folder");
    let rows = fixture("train/qwen2_own_decay/rows.jsonl");
    let (model, data) = (fixture("models/qwen2"), rows.as_str());
    let out = work.path().join("adapter");
    let more = [
        "--bias",
        "oft_only",
        "--modules-to-save",
        "lm_head, embed_tokens",
    ];
    let after = train(&model, data, &out, &more);
    assert_eq!(config(&out)["bias"], "oft_only");
    assert_eq!(
        config(&out)["modules_to_save"],
        json!(["lm_head", "embed_tokens"])
    );
    close(loss(&model, data, &[arg(&out)]), after);
    let merged = work.path().join("merged");
    let merge = ["merge", "--model", &model, "--adapter", arg(&out)];
    json_of(&[&merge[..], &["--output", arg(&merged)]].concat());
    close(loss(arg(&merged), data, &[]), after);
    let lora = work.path().join("lora");
    let export = ["export", "--to", "lora", "--rank", "2"];
    let with = ["--model", &model, "--adapter", arg(&out)];
    json_of(&[&export[..], &with, &["--output", arg(&lora)]].concat());
    let exported = self::config(&lora);
    assert_eq!(exported["bias"], "lora_only");
    assert_eq!(
        exported["modules_to_save"],
        json!(["embed_tokens", "lm_head"])
    );
}
