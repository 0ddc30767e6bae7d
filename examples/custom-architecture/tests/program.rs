//! The program with the new architecture, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Runs the program; its output has to be one JSON object.
#[track_caller]
fn program(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_qoft-stablelm"))
        .args(args)
        .arg("--json")
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn case(name: &str) -> PathBuf {
    root().join("tests/data").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn reference(name: &str) -> Value {
    let file = std::fs::read(case(name).join("reference.json")).expect("reference.json");
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

/// A copy of a model with a tokenizer, which text needs.
fn with_tokenizer(model: &Path, copy: &Path) {
    let tokenizer = root().join("../../crates/qoft-fixtures/data/tokenizer");
    let files = [(model, "config.json"), (model, "model.safetensors")];
    let names = ["tokenizer.json", "tokenizer_config.json"];
    let tokenizer = names.map(|name| (tokenizer.as_path(), name));
    std::fs::create_dir(copy).expect("a folder");
    for (folder, name) in files.into_iter().chain(tokenizer) {
        std::fs::copy(folder.join(name), copy.join(name)).expect("a copy");
    }
}

#[track_caller]
fn close(found: &Value, expected: &Value, tolerance: f64) {
    let numbers = found.as_f64().zip(expected.as_f64());
    let (found, expected) = numbers.expect("numbers");
    let off = (found - expected).abs() / expected;
    assert!(off <= tolerance, "{found}, not {expected}");
}

fn eval(model: &Path, rows: &Path, adapter: Option<&Path>) -> Value {
    let adapter = adapter.map(|adapter| ["--adapter", text(adapter)]);
    let files = ["--model", text(model), "--data", text(rows)];
    let args = [&["eval"][..], &files, adapter.as_ref().map_or(&[], |a| a)].concat();
    program(&args)["loss"].clone()
}

#[test]
fn layers_are_listed_with_the_sizes_of_the_configuration() {
    let inspection = program(&["inspect", text(&case("nf4"))]);
    let layers = inspection["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 14);
    assert!(layers.iter().all(|layer| layer["backend"] == "bnb-4bit"));
    assert_eq!(inspection["model_type"], "stablelm");
}

#[test]
fn losses_are_those_of_peft() {
    for name in ["dense", "options", "nf4"] {
        let (model, work) = (case(name), tempfile::tempdir().expect("a folder"));
        let reference = reference(name);
        let rows = data(work.path(), &reference["rows"]);
        close(&eval(&model, &rows, None), &reference["loss"], 1e-5);
        let adapter = model.join("adapter");
        close(
            &eval(&model, &rows, Some(&adapter)),
            &reference["adapted_loss"],
            1e-5,
        );
    }
}

#[test]
fn a_run_is_that_of_transformers() {
    for name in ["dense", "options", "nf4"] {
        let (model, work) = (case(name), tempfile::tempdir().expect("a folder"));
        let train = &reference(name)["train"];
        let rows = data(work.path(), &train["rows"]);
        let config = std::fs::read(model.join("trained/adapter_config.json")).expect("a file");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let block = format!("--oft-block-size={}", config["oft_block_size"]);
        for more in [None, Some("--gradient-checkpointing")] {
            let output = work.path().join(format!("adapter{}", more.is_some()));
            let files = [
                "--model",
                text(&model),
                "--data",
                text(&rows),
                "--output",
                text(&output),
            ];
            let options = [
                "--max-steps=8",
                "--learning-rate=2e-3",
                "--batch-size=2",
                "--no-shuffle",
            ];
            let targets = ["--target-modules=all-linear", &block];
            let args = [&["train"][..], &files, &options, &targets, more.as_slice()].concat();
            let summary = program(&args);
            close(&summary["first_loss"], &train["losses"][0], 1e-5);
            close(&summary["final_loss"], &train["losses"][7], 1e-4);
            close(
                &eval(&model, &rows, Some(&output)),
                &train["final_loss"],
                1e-4,
            );
        }
    }
}

#[test]
fn merged_models_have_the_loss_of_the_adapter() {
    for (name, options, tolerance) in [
        ("dense", &[][..], 1e-5),
        ("options", &["--dequantize"], 1e-5),
        ("nf4", &["--dequantize"], 1e-5),
        // Rounding to 4 bits again moves the loss.
        ("nf4", &["--min-kept=0"], 0.1),
    ] {
        let (model, work) = (case(name), tempfile::tempdir().expect("a folder"));
        let reference = reference(name);
        let rows = data(work.path(), &reference["rows"]);
        let (adapter, merged) = (model.join("adapter"), work.path().join("merged"));
        let files = ["--model", text(&model), "--adapter", text(&adapter)];
        let args = [
            &["merge"][..],
            &files,
            &["--output", text(&merged)],
            options,
        ]
        .concat();
        let report = program(&args);
        assert_eq!(report["layers"].as_array().map(Vec::len), Some(14));
        close(
            &eval(&merged, &rows, None),
            &reference["adapted_loss"],
            tolerance,
        );
    }
}

#[test]
fn text_is_generated_with_an_adapter() {
    let work = tempfile::tempdir().expect("a folder");
    let (model, adapter) = (work.path().join("model"), case("nf4").join("adapter"));
    with_tokenizer(&case("nf4"), &model);
    let files = ["--model", text(&model), "--adapter", text(&adapter)];
    let prompt = ["--prompt", "4:R", "--max-new-tokens", "20"];
    let generated = program(&[&["generate"][..], &files, &prompt].concat());
    let count = generated["new_tokens"].as_u64().expect("a count");
    assert!(count > 0 && count <= 20, "{generated}");
}

#[test]
fn adapters_have_default_targets() {
    let (model, work) = (case("dense"), tempfile::tempdir().expect("a folder"));
    let rows = data(work.path(), &reference("dense")["rows"]);
    let output = work.path().join("adapter");
    let files = [
        "--model",
        text(&model),
        "--data",
        text(&rows),
        "--output",
        text(&output),
    ];
    program(
        &[
            &["train"][..],
            &files,
            &["--max-steps=1", "--oft-block-size=8"],
        ]
        .concat(),
    );
    let config = std::fs::read(output.join("adapter_config.json")).expect("a file");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["target_modules"], json!(["q_proj", "v_proj"]));
}

/// The dense model with wider layers, which fit the groups and blocks of all schemes: its values
/// repeated.
fn wide(folder: &Path) {
    with_tokenizer(&case("dense"), folder);
    let size = |old: u64| match old {
        16 => 128,
        32 => 256,
        48 => 512,
        other => other,
    };
    let config = folder.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).expect("config.json"))
        .expect("config.json is JSON");
    for key in ["hidden_size", "intermediate_size"] {
        json[key] = size(json[key].as_u64().expect("a size")).into();
    }
    std::fs::write(&config, json.to_string()).expect("config.json");

    let file = folder.join("model.safetensors");
    let bytes = std::fs::read(&file).expect("model.safetensors");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, old) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).expect("a header");
    let mut new = Vec::new();
    for (name, tensor) in header.as_object_mut().expect("a header") {
        if name == "__metadata__" {
            continue;
        }
        let numbers =
            |value: &Value| -> Vec<u64> { serde_json::from_value(value.clone()).expect("numbers") };
        let shape = numbers(&tensor["shape"]);
        let start = numbers(&tensor["data_offsets"])[0] as usize;
        let wide: Vec<u64> = shape.iter().map(|old| size(*old)).collect();
        let (columns, wide_columns) = (shape[shape.len() - 1], wide[wide.len() - 1]);
        let rows = |shape: &[u64]| shape[..shape.len() - 1].iter().product::<u64>();
        let begin = new.len();
        for row in 0..rows(&wide) {
            for column in 0..wide_columns {
                let at = row % rows(&shape) * columns + column % columns;
                new.extend_from_slice(&old[start + 4 * at as usize..][..4]);
            }
        }
        tensor["shape"] = json!(wide);
        tensor["data_offsets"] = json!([begin, new.len()]);
    }
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&file, [&length, header.as_bytes(), &new].concat()).expect("a model");
}

#[test]
fn every_scheme_that_can_be_written_trains_merges_and_generates() {
    let work = tempfile::tempdir().expect("a folder");
    let place = |name: String| work.path().join(name);
    let model = place("wide".into());
    wide(&model);
    let rows = data(work.path(), &reference("dense")["rows"]);
    let mut schemes = 0;
    let backends = program(&["backends"]);
    for backend in backends["backends"].as_array().expect("backends") {
        if backend["capabilities"]["quantize"] != true {
            continue;
        }
        let name = backend["name"].as_str().expect("a name");
        let [quantized, adapter, merged] =
            ["", "-adapter", "-merged"].map(|part| place(format!("{name}{part}")));
        let files = ["--model", text(&model), "--output", text(&quantized)];
        program(&[&["quantize", "--scheme", name][..], &files].concat());
        let files = [
            ["--model", text(&quantized)],
            ["--data", text(&rows)],
            ["--output", text(&adapter)],
        ];
        // Schemes that round their inputs as well learn less evenly: a step can go up.
        let options = [
            "--max-steps=12",
            "--oft-block-size=16",
            "--target-modules=all-linear",
        ];
        let summary = program(&[&["train"][..], files.as_flattened(), &options].concat());
        let losses =
            ["first_loss", "final_loss"].map(|loss| summary[loss].as_f64().expect("a loss"));
        assert!(losses[1] < losses[0], "{name}: {losses:?}");
        let files = [
            ["--model", text(&quantized)],
            ["--adapter", text(&adapter)],
            ["--output", text(&merged)],
        ];
        program(&[&["merge", "--min-kept=0"][..], files.as_flattened()].concat());
        let adapted = eval(&quantized, &rows, Some(&adapter));
        close(&eval(&merged, &rows, None), &adapted, 0.1);
        let prompt = ["--prompt", "4:R", "--max-new-tokens", "4"];
        let files = ["--model", text(&merged)];
        let generated = program(&[&["generate"][..], &files, &prompt].concat());
        assert!(generated["new_tokens"].as_u64() > Some(0), "{name}");
        schemes += 1;
    }
    assert!(schemes >= 10, "only {schemes}");
}
