//! Writing adapters as LoRA.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use super::{ADAPTER, NF4};
use crate::common::file::refused;
use crate::common::json_of;
use crate::common::{arg, fixture, qoft};

#[test]
fn export_writes_a_lora() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let mut last = f64::INFINITY;
    for rank in [4, 16, 64] {
        let out = work.path().join(format!("lora{rank}"));
        let rank = rank.to_string();
        let report = json_of(&[
            "export",
            "--to",
            "lora",
            "--rank",
            &rank,
            "--model",
            &model,
            "--adapter",
            &adapter,
            "--output",
            arg(&out),
        ]);
        let layers = report["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 14);
        let residual = |layer: &Value| layer["residual"].as_f64().expect("a residual");
        let worst = layers.iter().map(residual).fold(0.0, f64::max);
        assert!(worst < last, "{worst}");
        last = worst;
        let config = fs::read(out.join("adapter_config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["r"].to_string(), rank);
        assert_eq!(config["lora_alpha"].to_string(), rank);
        let targets = config["target_modules"].as_array().expect("targets");
        assert_eq!(targets[0], layers[0]["name"]);
        assert_eq!(targets.len(), 14);
    }
    assert!(last < 1e-5, "{last}");
}

#[test]
fn bad_exports() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let out = work.path().join("out");
    let bad = |more: &[&str], needle: &str| {
        let args = ["export", "--model", &model, "--output", arg(&out)];
        refused(&[&args[..], more].concat(), work.path(), needle);
    };
    let adapter = ["--adapter", &adapter];
    bad(
        &[&adapter[..], &["--to=lora", "--rank=0"]].concat(),
        "--rank",
    );
    bad(&[&adapter[..], &["--to=lora"]].concat(), "--rank");
    bad(&[&adapter[..], &["--to=ia3", "--rank=4"]].concat(), "ia3");
    bad(&["--to=lora", "--rank=4"], "--adapter");
    let other = fixture("adapters/embedding");
    bad(
        &["--to=lora", "--rank=4", "--adapter", &other],
        "embed_tokens",
    );
}

/// Whether a run went well, and what it said.
fn said(args: &[&str]) -> (bool, String) {
    let run = qoft(args);
    (run.code == Some(0), run.stdout + &run.stderr)
}

#[test]
fn gguf_files_are_written_and_merged_again() {
    let work = tempdir().expect("a folder");
    let model = fixture(NF4);
    let file = work.path().join("model.gguf");
    let export = ["export", "--to", "gguf", "--model", &model];
    let (ok, text) = said(
        &[
            &export[..],
            &["--gguf-type", "Q8_0", "--output", arg(&file)],
        ]
        .concat(),
    );
    assert!(ok && file.is_file(), "{text}");
    let adapter = fixture(ADAPTER);
    let merged = work.path().join("merged.gguf");
    let (ok, text) = said(&[
        "merge",
        "--report",
        "--min-kept",
        "0",
        "--model",
        arg(&file),
        "--adapter",
        &adapter,
        "--output",
        arg(&merged),
    ]);
    assert!(ok && merged.is_file(), "{text}");
    assert!(work.path().join("merged.merge_report.json").is_file());
    let [before, after] = [&file, &merged].map(|path| fs::metadata(path).expect("a file").len());
    assert_eq!(before, after);
    let (ok, text) = said(&["inspect", arg(&merged)]);
    assert!(ok && text.contains("gguf"), "{text}");

    let again = [&export[..], &["--output", arg(&file)]].concat();
    let out = work.path().join("out");
    let to = ["--output", arg(&out)];
    let unknown = [&export[..], &["--gguf-type", "q9"], &to].concat();
    let rank = [&export[..], &["--rank", "2"], &to].concat();
    for (args, reason) in [
        (again, "the output file exists"),
        (unknown, "no type of numbers `q9`"),
        (rank, "--rank is for --to lora"),
    ] {
        let (ok, text) = said(&args);
        assert!(!ok && text.contains(reason), "{text}");
        assert!(!out.exists());
    }
}
