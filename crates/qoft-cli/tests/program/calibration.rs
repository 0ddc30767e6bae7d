//! Merging with calibration data.

use std::fs;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::file::refused;
use crate::common::{arg, fixture, names, qoft};

/// A data file of token ids.
pub fn data(folder: &std::path::Path) -> std::path::PathBuf {
    let row = |row: usize| -> Vec<usize> { (0..24).map(|i| 3 + (row * 7 + i * i) % 50).collect() };
    let rows = (0..6).map(|index| json!({ "input_ids": row(index) }).to_string());
    let path = folder.join("rows.jsonl");
    fs::write(&path, rows.collect::<Vec<_>>().join("\n")).expect("a data file");
    path
}

#[test]
fn calibrated_codes_are_others_and_nothing_else_stays() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path());
    let (model, adapter) = (fixture("models/llama_nf4"), fixture("adapters/all_linear"));
    let errors = |name: &str, more: &[&str]| -> Vec<f64> {
        // A folder that is not there yet.
        let out = work.path().join("new").join(name);
        let args = [
            "merge",
            "--min-kept=0",
            "--model",
            &model,
            "--adapter",
            &adapter,
            "--json",
        ];
        let run = qoft(&[&args[..], &["--output", arg(&out)], more].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert!(!run.stderr.contains("--calibration changes nothing"));
        let layers = report["layers"].as_array().expect("layers").iter();
        let error = |layer: &Value| layer["relative_error"].as_f64().expect("a number");
        layers.map(error).collect()
    };
    let nearest = errors("nearest", &[]);
    let all = errors("all", &["--calibration", arg(&rows)]);
    let few = ["--calibration-rows=2", "--max-length=8"];
    let few = errors("few", &[&few[..], &["--calibration", arg(&rows)]].concat());
    for ((nearest, all), few) in nearest.iter().zip(&all).zip(&few) {
        assert!(nearest < all && nearest < few && all != few);
    }
    assert_eq!(names(&work.path().join("new")), ["all", "few", "nearest"]);
}

#[test]
fn a_scheme_that_does_not_use_the_data_is_told() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path());
    let model = fixture("schemes/aqlm/2x8_g8");
    let adapter = format!("{model}/trained");
    let merged = |name: &str, more: &[&str]| {
        let out = work.path().join(name);
        let args = [
            "merge",
            "--min-kept=0",
            "--model",
            &model,
            "--adapter",
            &adapter,
        ];
        let run = qoft(&[&args[..], &["--output", arg(&out), "--json"], more].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let mut report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        // What the data tells all the same.
        for layer in report["layers"].as_array_mut().expect("layers") {
            layer["change"]["outputs"].take();
        }
        (report["layers"].take(), run.stderr)
    };
    let (nearest, told) = merged("nearest", &[]);
    assert!(!told.contains("--calibration changes nothing"), "{told}");
    let (same, told) = merged("same", &["--calibration", arg(&rows)]);
    assert_eq!(nearest, same);
    let layers = same.as_array().expect("layers");
    // The output head is dense.
    let own = layers.iter().filter(|layer| layer["backend"] == "aqlm");
    let (own, all) = (own.count(), layers.len());
    assert_eq!(own, all - 1);
    let needle = format!("--calibration changes nothing in {own} of {all} layers (aqlm)");
    assert!(told.contains(&needle), "{told}");
}

#[test]
fn bad_calibration() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path());
    let (model, adapter) = (fixture("models/llama_nf4"), fixture("adapters/all_linear"));
    let out = work.path().join("out");
    let bad = |more: &[&str], needle: &str| {
        let args = ["merge", "--model", &model, "--adapter", &adapter];
        let args = [&args[..], &["--output", arg(&out)], more].concat();
        refused(&args, work.path(), needle);
    };
    let rows = ["--calibration", arg(&rows)];
    bad(&[&rows[..], &["--dequantize"]].concat(), "--dequantize");
    bad(
        &[&rows[..], &["--calibration-rows=0"]].concat(),
        "--calibration-rows",
    );
    bad(&["--calibration-rows=3"], "--calibration");
    bad(&["--calibration=/nowhere.jsonl"], "/nowhere.jsonl");
    let empty = work.path().join("empty.jsonl");
    fs::write(&empty, "").expect("a file");
    bad(&["--calibration", arg(&empty)], "empty.jsonl");
    fs::create_dir(&out).expect("a folder");
    fs::write(out.join("mine"), "text").expect("a file");
    bad(&rows, arg(&out));
}
