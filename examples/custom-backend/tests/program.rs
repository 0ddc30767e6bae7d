//! The program with the new backend, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Runs the program; its output has to be one JSON object.
#[track_caller]
fn program(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_qoft-bitnet"))
        .args(args)
        .arg("--json")
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A whole model among the checkpoints.
fn model(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("tests/data").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn reference(model: &Path) -> Value {
    let file = std::fs::read(model.join("reference.json")).expect("reference.json");
    serde_json::from_slice(&file).expect("JSON")
}

/// A data file with these rows of token ids.
fn data(folder: &Path, rows: &Value) -> PathBuf {
    let rows = rows.as_array().expect("rows").iter();
    let lines: Vec<String> = rows
        .map(|ids| json!({ "input_ids": ids }).to_string())
        .collect();
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, lines.join("\n")).expect("a data file");
    path
}

#[track_caller]
fn close(found: &Value, expected: &Value) {
    let numbers = found.as_f64().zip(expected.as_f64());
    let (found, expected) = numbers.expect("numbers");
    assert!((found - expected).abs() <= 2e-4, "{found}, not {expected}");
}

#[test]
fn the_backend_is_listed() {
    let listed = program(&["backends"]);
    let backends = listed["backends"].as_array().expect("backends");
    let names: Vec<_> = backends.iter().map(|b| &b["name"]).collect();
    assert!(names.contains(&&json!("bitnet")), "{names:?}");
    assert!(names.contains(&&json!("bnb-4bit")), "{names:?}");
}

#[test]
fn every_layer_is_found() {
    let inspection = program(&["inspect", text(&model("autobitlinear"))]);
    let layers = inspection["layers"].as_array().expect("layers").iter();
    let (quantized, other): (Vec<_>, Vec<_>) = layers.partition(|l| l["backend"] == "bitnet");
    assert_eq!((quantized.len(), other.len()), (14, 1));
    assert_eq!(other[0]["name"], "lm_head");
    for layer in quantized {
        assert_eq!(layer["bits"], 2, "{layer}");
        assert_eq!(layer["format"], "ternary", "{layer}");
    }
}

#[test]
fn losses_are_those_of_the_library() {
    for name in ["bitlinear", "autobitlinear"] {
        let (model, work) = (model(name), tempfile::tempdir().expect("a folder"));
        let (reference, adapter) = (reference(&model), model.join("adapter"));
        let rows = data(work.path(), &reference["rows"]);
        let eval = ["eval", "--model", text(&model), "--data", text(&rows)];
        close(&program(&eval)["loss"], &reference["loss"]);
        // PEFT knows how to adapt one of the two classes.
        if name == "autobitlinear" {
            let adapted = program(&[&eval[..], &["--adapter", text(&adapter)]].concat());
            close(&adapted["loss"], &reference["adapted_loss"]);
        }
    }
}

#[test]
fn an_adapter_is_trained_and_used() {
    let (model, work) = (
        model("autobitlinear"),
        tempfile::tempdir().expect("a folder"),
    );
    let rows = data(work.path(), &reference(&model)["train"]["rows"]);
    let adapter = work.path().join("adapter");
    let files = ["--model", text(&model), "--data", text(&rows)];
    let options = ["--max-steps=5", "--learning-rate=2e-3"];
    let output = ["--output", text(&adapter)];
    let targets = ["--target-modules=all-linear", "--oft-block-size=16"];
    let train = [&["train"][..], &files, &options, &targets, &output].concat();
    assert_eq!(program(&train)["steps"], 5);

    let eval = [&["eval"][..], &files].concat();
    let loss = |value: Value| value["loss"].as_f64().expect("a loss");
    let before = loss(program(&eval));
    let after = loss(program(
        &[&eval[..], &["--adapter", text(&adapter)]].concat(),
    ));
    assert!(after < before, "{before} became {after}");
}

#[test]
fn a_dense_model_leaves_its_inputs_as_they_are() {
    for name in ["bitlinear", "autobitlinear"] {
        let (model, work) = (model(name), tempfile::tempdir().expect("a folder"));
        let (reference, dense) = (reference(&model), work.path().join("dense"));
        let report = program(&["dequantize", text(&model), "--output", text(&dense)]);
        assert_eq!(report["layers"], 14);
        let rows = data(work.path(), &reference["rows"]);
        let eval = ["eval", "--model", text(&dense), "--data", text(&rows)];
        close(&program(&eval)["loss"], &reference["dense_loss"]);
    }
}
