//! The program with the new family, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qoft-goft"))
        .args(args)
        .arg("--json")
        .output()
        .expect("the program starts")
}

/// Runs the program; its output has to be one JSON object.
#[track_caller]
fn program(args: &[&str]) -> Value {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A small model of the repository.
fn model(name: &str) -> PathBuf {
    let models = "../../crates/qoft-fixtures/data/models";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(models)
        .join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Rows that can be learnt.
fn data(folder: &Path) -> PathBuf {
    let row = |at: usize| {
        let ids: Vec<usize> = (0..12).map(|i| 3 + (5 * at + 7 * i) % 50).collect();
        json!({ "input_ids": ids }).to_string()
    };
    let path = folder.join("rows.jsonl");
    let rows: Vec<String> = (0..8).map(row).collect();
    std::fs::write(&path, rows.join("\n")).expect("a data file");
    path
}

fn loss(model: &Path, rows: &Path, adapter: Option<&str>) -> f64 {
    let mut args = vec!["eval", "--model", text(model), "--data", text(rows)];
    args.extend(adapter.iter().flat_map(|adapter| ["--adapter", adapter]));
    program(&args)["loss"].as_f64().expect("a loss")
}

fn train(model: &Path, rows: &Path, output: &Path, more: &[&str]) -> Output {
    train_layers("all-linear", model, rows, output, more)
}

fn train_layers(layers: &str, model: &Path, rows: &Path, output: &Path, more: &[&str]) -> Output {
    let files = [
        "--model",
        text(model),
        "--data",
        text(rows),
        "--output",
        text(output),
    ];
    let run_for = [
        "--max-steps",
        "12",
        "--batch-size",
        "4",
        "--learning-rate",
        "0.05",
    ];
    let family = ["train", "--peft-type", "goft", "--target-modules", layers];
    run(&[&family[..], &files, &run_for, more].concat())
}

#[test]
fn adapters_train_on_dense_and_on_packed_weights_and_can_be_merged() {
    for name in ["llama", "llama_nf4"] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let (model, rows) = (model(name), data(work.path()));
        let adapter = work.path().join("adapter");
        let output = train(&model, &rows, &adapter, &["--save-steps", "6"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let config = std::fs::read(adapter.join("adapter_config.json")).expect("a file");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["peft_type"], "GOFT");

        let (base, trained) = (
            loss(&model, &rows, None),
            loss(&model, &rows, Some(text(&adapter))),
        );
        assert!(trained < base - 0.1, "{name}: {base} {trained}");
        let half = loss(&model, &rows, Some(&format!("{}=0.5", text(&adapter))));
        assert!(
            trained < half && half < base,
            "{name}: {trained} {half} {base}"
        );

        let merged = work.path().join("merged");
        let merge = [
            "merge",
            "--model",
            text(&model),
            "--adapter",
            text(&adapter),
        ];
        program(
            &[
                &merge[..],
                &["--output", text(&merged), "--dequantize", "--dtype", "f32"],
            ]
            .concat(),
        );
        let merged = loss(&merged, &rows, None);
        assert!(
            (merged - trained).abs() < 1e-4,
            "{name}: {merged} {trained}"
        );

        // A run that goes on from a checkpoint ends where the whole one did.
        let again = work.path().join("again");
        let checkpoint = adapter.join("checkpoint-6");
        let output = train(&model, &rows, &again, &["--resume-from", text(&checkpoint)]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let read = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors"));
        assert_eq!(
            read(&adapter).expect("a file"),
            read(&again).expect("a file")
        );
    }
}

/// Its parameters have the same name for every kind of layer: the model says that this is a table.
#[test]
fn a_table_is_merged_as_one() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (model, rows) = (model("llama"), data(work.path()));
    let adapter = work.path().join("adapter");
    let output = train_layers("embed_tokens", &model, &rows, &adapter, &[]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (base, trained) = (
        loss(&model, &rows, None),
        loss(&model, &rows, Some(text(&adapter))),
    );
    assert!((trained - base).abs() > 1e-2, "{base} {trained}");
    let merged = work.path().join("merged");
    program(&[
        "merge",
        "--model",
        text(&model),
        "--adapter",
        text(&adapter),
        "--output",
        text(&merged),
    ]);
    let found = loss(&merged, &rows, None);
    assert!((found - trained).abs() < 1e-3, "{found} {trained}");
}

#[test]
fn options_that_the_family_does_not_have_are_listed() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let rows = data(work.path());
    let output = work.path().join("adapter");
    let output = train(
        &model("llama"),
        &rows,
        &output,
        &["--adapter-option", "angle=3"],
    );
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("`angle` is no option of GOFT") && errors.contains("init_weights"),
        "{errors}"
    );
}
