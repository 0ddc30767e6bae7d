//! Merging adapters, and in modules below writing them as LoRA.

mod cut;
mod export;
mod refusals;
mod schemes;
mod tables;
mod trained;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{self, Run, Started, arg, copy_fixture, fixture, good, json_of, names, qoft};
use serde_json::{Value, json};
use tempfile::tempdir;

/// A model, an adapter for it, and the rows of the fixtures that they are measured on.
const CASES: [(&str, &str, &str); 3] = [
    ("llama_nf4", "all_linear", "rows"),
    ("llama_int8", "int8_all_linear", "rows"),
    ("llama", "dense_all_linear", "rows_dense"),
];
const NF4: &str = "models/llama_nf4";
const ADAPTER: &str = "adapters/all_linear";

/// Some rows of the fixtures as a data file.
fn data(folder: &Path, key: &str) -> PathBuf {
    let text = fs::read(qoft_fixtures::path("adapters/expected.json")).expect("the rows");
    let expected: Value = serde_json::from_slice(&text).expect("JSON");
    let rows = expected[key].as_array().expect("rows").iter();
    let rows: Vec<String> = rows
        .map(|ids| json!({"input_ids": ids}).to_string())
        .collect();
    let path = folder.join("rows.jsonl");
    fs::write(&path, rows.join("\n")).expect("a data file");
    path
}

#[track_caller]
fn loss(model: &str, data: &Path, adapters: &[&str]) -> f64 {
    common::loss(model, arg(data), adapters)
}

/// Merges into the new folder `merged` of `work`.
#[track_caller]
fn merge(model: &str, adapters: &[&str], work: &Path, more: &[&str]) -> (PathBuf, Value) {
    let out = work.join("merged");
    let mut args = vec!["merge", "--model", model, "--output", arg(&out)];
    for adapter in adapters {
        args.extend(["--adapter", adapter]);
    }
    args.extend(more);
    let report = json_of(&args);
    (out, report)
}

#[track_caller]
fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not near {b}");
}

#[test]
fn a_dense_merge_has_the_adapted_loss() {
    for (model, adapter, rows) in CASES {
        let work = tempdir().expect("a folder");
        let rows = data(work.path(), rows);
        let model = fixture(&format!("models/{model}"));
        let adapter = fixture(&format!("adapters/{adapter}"));
        let (out, report) = merge(&model, &[&adapter], work.path(), &["--dequantize"]);
        let expected = loss(&model, &rows, &[&adapter]);
        near(loss(arg(&out), &rows, &[]), expected, 2e-4);
        assert!((expected - loss(&model, &rows, &[])).abs() > 1e-2);
        let layers = report["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 14);
        assert!(layers.iter().all(|layer| layer["relative_error"] == 0.0));
        near(report["change_kept"].as_f64().unwrap(), 1.0, 1e-12);
        let inspection = json_of(&["inspect", arg(&out)]);
        assert_eq!(inspection["quant_method"], Value::Null);
        assert_eq!(names(work.path()), ["merged", "rows.jsonl"]);
    }
}

#[test]
fn dense_formats_are_chosen() {
    for (dtype, format) in [("f16", "f16"), ("bf16", "bf16"), ("f32", "f32")] {
        let work = tempdir().expect("a folder");
        let more = ["--dequantize", "--dtype", dtype];
        let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
        let (out, report) = merge(&model, &[&adapter], work.path(), &more);
        let inspection = json_of(&["inspect", arg(&out)]);
        assert_eq!(inspection["layers"][0]["format"], format);
        let error = report["layers"][0]["relative_error"].as_f64().unwrap();
        assert_eq!(error > 0.0, dtype != "f32", "{dtype}: {error}");
    }
}

#[test]
fn merging_keeps_the_scheme() {
    for (model, adapter, rows) in CASES {
        let work = tempdir().expect("a folder");
        let rows = data(work.path(), rows);
        let path = fixture(&format!("models/{model}"));
        let adapter = fixture(&format!("adapters/{adapter}"));
        let more = ["--report", "--data", arg(&rows)];
        let (out, report) = merge(&path, &[&adapter], work.path(), &more);

        let [before, after] = [&path, arg(&out)].map(|folder| json_of(&["inspect", folder]));
        assert_eq!(before["quant_method"], after["quant_method"]);
        assert_eq!(before["layers"], after["layers"]);
        let losses = &report["losses"];
        let [adapted, merged] = ["adapted", "merged"].map(|key| losses[key].as_f64().unwrap());
        near(adapted, loss(&path, &rows, &[&adapter]), 1e-6);
        near(merged, loss(arg(&out), &rows, &[]), 1e-6);
        // These models have random weights: quantizing again costs them much.
        near(adapted, merged, if model == "llama" { 2e-4 } else { 0.3 });

        let text = fs::read(out.join("merge_report.json")).expect("a report");
        let stored: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(stored, report);
        let kinds = report["kinds"].as_array().expect("kinds");
        assert_eq!(kinds.len(), 7);
        assert!(kinds.iter().all(|kind| kind["layers"] == 2));
        let svg = fs::read_to_string(out.join("merge_report.svg")).expect("a chart");
        assert!(svg.starts_with("<svg") && svg.contains("down_proj"));
        assert_eq!(names(work.path()), ["merged", "rows.jsonl"]);
    }
}

#[test]
fn the_report_is_a_table_too_and_stays_with_its_merge() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let first = work.path().join("first");
    let args = ["merge", "--model", &model, "--adapter", &adapter];
    let run = good(&[&args[..], &["--output", arg(&first), "--report"]].concat());
    assert_eq!(run.stdout, "");
    for text in [
        "layer, worst first",
        "4 more",
        "kind",
        "q_proj",
        "change kept",
    ] {
        assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
    }
    let (second, _) = merge(arg(&first), &[&adapter], work.path(), &[]);
    assert!(!names(&second).contains(&"merge_report.json".to_owned()));
}

#[test]
fn a_change_that_would_be_rounded_away_is_not_written_unless_that_is_asked_for() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path(), "rows");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let little = format!("{adapter}=0.05");
    let args = |out: &str, more: &[&str]| -> Vec<String> {
        let out = work.path().join(out);
        let args = ["merge", "--model", &model, "--output", arg(&out), "--json"];
        args.iter()
            .chain(more)
            .map(|&text| text.to_owned())
            .collect()
    };
    let run = |out: &str, more: &[&str]| {
        let args = args(out, more);
        qoft(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let report = |run: &Run| -> Value {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str(&run.stdout).expect("JSON")
    };
    let kept = |report: &Value| report["change_kept"].as_f64().expect("a share");
    let all = report(&run("all", &["--adapter", &adapter]));
    assert!(kept(&all) > 0.5);
    assert_eq!(all["min_kept"], 0.5);
    assert_eq!(all["kept"]["weights"], all["change_kept"]);
    assert!(all["kept"]["outputs"].is_null());

    // Refused, with what else there is, measured.
    let little = ["--adapter", &little];
    let refused = run("refused", &[&little[..], &["--data", arg(&rows)]].concat());
    assert!(
        refused.code.is_some_and(|code| code != 0),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stdout, "");
    for text in [
        "rounded away",
        "nothing was written",
        "--min-kept 0",
        "measured on 8 layers and the first rows of --data",
    ] {
        assert!(refused.stderr.contains(text), "{text}: {}", refused.stderr);
    }
    // The shares of the weights' and of the outputs' changes.
    let shares = |name: &str| -> Vec<f64> {
        let line = refused
            .stderr
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {}", refused.stderr));
        let shares = line.trim_start()[name.len()..].split('%');
        shares
            .filter_map(|share| share.trim().parse().ok())
            .collect()
    };
    let (nearest, calibrated) = (shares("the nearest codes"), shares("--calibration FILE"));
    assert!(nearest[0] < 30.0 && nearest[1] < 50.0, "{nearest:?}");
    assert!(
        calibrated[1] > nearest[1] + 20.0,
        "{calibrated:?} {nearest:?}"
    );
    assert_eq!(shares("--dequantize --dtype f32"), [100.0]);
    assert_eq!(names(work.path()), ["all", "rows.jsonl"]);

    let nearest = run("nearest", &[&little[..], &["--min-kept=0"]].concat());
    assert!(
        nearest.stderr.contains("rounded away"),
        "{}",
        nearest.stderr
    );
    let nearest = report(&nearest);
    assert!(kept(&nearest) < 0.3, "{nearest}");
    let calibration = ["--min-kept=0", "--calibration", arg(&rows)];
    let calibrated = report(&run("calibrated", &[&little[..], &calibration].concat()));
    assert_eq!(calibrated["kept"]["outputs"], calibrated["change_kept"]);
    assert!(calibrated["kept"]["weights"].is_number());
    assert!(kept(&calibrated) > kept(&nearest) + 0.2, "{calibrated}");
    let outputs = &calibrated["layers"][0]["change"]["outputs"];
    assert!(outputs["kept"].is_number() && outputs["error"].is_number());
    let dense = run("dense", &[&little[..], &["--dequantize"]].concat());
    near(kept(&report(&dense)), 1.0, 1e-12);
    assert!(!dense.stderr.contains("warning"), "{}", dense.stderr);
}

#[test]
fn adapters_are_merged_in_their_order() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path(), "rows");
    let model = fixture(NF4);
    let [first, second] = ["neumann5", "second"].map(|case| fixture(&format!("adapters/{case}")));
    let (out, _) = merge(&model, &[&first, &second], work.path(), &["--dequantize"]);
    let found = loss(arg(&out), &rows, &[]);
    near(found, loss(&model, &rows, &[&first, &second]), 2e-4);
    assert!((found - loss(&model, &rows, &[&second, &first])).abs() > 1e-3);
}

#[test]
fn strength_scales_an_adapter() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path(), "rows");
    let (model, adapter) = (fixture(NF4), fixture("adapters/cayley"));
    let with = |strength: &str| format!("{adapter}={strength}");
    let base = loss(&model, &rows, &[]);
    let full = loss(&model, &rows, &[&adapter]);
    let half = loss(&model, &rows, &[&with("0.5")]);
    near(loss(&model, &rows, &[&with("0")]), base, 1e-6);
    near(loss(&model, &rows, &[&with("1")]), full, 0.0);
    // A rotation and its inverse.
    near(loss(&model, &rows, &[&with("1"), &with("-1")]), base, 1e-5);
    assert!((half - base).abs() > 1e-3 && (half - full).abs() > 1e-3);

    for (strength, expected) in [("0.5", half), ("0", base), ("1", full)] {
        let work = tempdir().expect("a folder");
        let (out, _) = merge(&model, &[&with(strength)], work.path(), &["--dequantize"]);
        near(loss(arg(&out), &rows, &[]), expected, 2e-4);
    }
    let (out, report) = merge(&model, &[&with("0")], work.path(), &[]);
    assert_eq!(report["layers"], json!([]));
    near(loss(arg(&out), &rows, &[]), base, 0.0);
}

#[test]
fn a_path_with_an_equals_sign_is_a_path() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path(), "rows");
    let adapter = copy_fixture(ADAPTER, work.path(), "run=2");
    let model = fixture(NF4);
    let full = loss(&model, &rows, &[&fixture(ADAPTER)]);
    near(loss(&model, &rows, &[arg(&adapter)]), full, 0.0);
    let none = format!("{}=0", arg(&adapter));
    near(
        loss(&model, &rows, &[&none]),
        loss(&model, &rows, &[]),
        1e-6,
    );
}

#[test]
fn a_killed_merge_leaves_all_or_nothing() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let (whole, _) = merge(&model, &[&adapter], work.path(), &[]);
    let mut interrupted = 0;
    for attempt in 0..24 {
        let folder = work.path().join(attempt.to_string());
        fs::create_dir(&folder).expect("a folder");
        let out = folder.join("out");
        let args = ["merge", "--model", &model, "--adapter", &adapter];
        let mut command = Command::new(env!("CARGO_BIN_EXE_qoft"));
        let command = command.args(args).args(["--output", arg(&out)]);
        let mut child = Started::new(command);
        // It works beside the output; then it is killed, each time a bit later.
        let start = Instant::now();
        while names(&folder).is_empty() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(attempt * 700));
        let _ = child.kill();
        child.wait().expect("an end");
        if out.exists() {
            assert_eq!(names(&out), names(&whole), "attempt {attempt}");
            for name in names(&whole) {
                let [a, b] = [&out, &whole].map(|folder| fs::read(folder.join(&name)).ok());
                assert!(a == b, "attempt {attempt}: {name}");
            }
        } else {
            interrupted += 1;
        }
        // What is left over does not stand in the way, and the next merge removes it.
        let left = names(&folder).into_iter();
        let left = left.filter(|name| name != "out" && name != ".out.lock");
        let left: Vec<String> = left.collect();
        if attempt % 6 == 0 {
            let _ = fs::remove_dir_all(&out);
            let run = good(&[&args[..], &["--output", arg(&out)]].concat());
            assert_eq!(names(&out), names(&whole));
            assert_eq!(names(&folder), ["out"]);
            assert!(left.iter().all(|name| run.stderr.contains(name.as_str())));
        }
    }
    assert!(interrupted > 0, "no merge was killed midway");
}
