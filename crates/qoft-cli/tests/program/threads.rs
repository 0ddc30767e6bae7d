//! `--threads`, and what it changes in the numbers.

use std::fs;
use std::path::Path;

use crate::common::{Run, arg, fixture, qoft};
use tempfile::tempdir;

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

fn train(output: &Path, more: &[&str]) -> Run {
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let args = ["train", "--model", &model, "--data", &rows, "--output"];
    let settings = ["--max-steps=6", "--learning-rate=1e-2", "--batch-size=4"];
    qoft(&[&args[..], &[arg(output)], &settings, more].concat())
}

/// The bytes of an adapter that is trained with these options.
#[track_caller]
fn trained(more: &[&str]) -> Vec<u8> {
    let work = tempdir().expect("a folder");
    let output = work.path().join("adapter");
    let run = train(&output, more);
    assert_eq!(run.code, Some(0), "{more:?}: {}", run.stderr);
    fs::read(output.join("adapter_model.safetensors")).expect("an adapter")
}

#[test]
fn runs_with_the_same_threads_give_the_same_bytes() {
    let two = trained(&["--threads", "2"]);
    assert_eq!(two, trained(&["--threads", "2"]));
    assert_eq!(
        two,
        trained(&["--threads", "2", "--gradient-checkpointing"])
    );
    assert_ne!(
        two,
        trained(&["--threads", "2", "--activation-dtype", "bf16"])
    );
}

/// Threads divide large vocabularies among them; that of this model is small.
#[test]
fn other_numbers_of_threads_change_no_byte_of_a_small_model() {
    assert_eq!(trained(&["--threads", "1"]), trained(&["--threads", "2"]));
    assert_eq!(trained(&["--threads", "1"]), trained(&["--threads", "3"]));
}

#[test]
fn a_file_may_give_the_options_of_memory_and_threads() {
    let work = tempdir().expect("a folder");
    let yaml = work.path().join("run.yaml");
    let text = "threads: 2\ngradient_checkpointing: true\nactivation_dtype: f32\n";
    fs::write(&yaml, text).expect("a config file");
    assert_eq!(
        trained(&["--config", arg(&yaml)]),
        trained(&["--threads=2"])
    );
    fs::write(&yaml, "activation_dtype: f8\n").expect("a config file");
    let run = train(&work.path().join("adapter"), &["--config", arg(&yaml)]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("f8"), "{}", run.stderr);
}

#[test]
fn more_threads_than_any_machine_has_are_an_error() {
    let model = fixture(MODEL);
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(["inspect", &model])
        .env("RAYON_NUM_THREADS", "100000")
        .output()
        .expect("the program");
    let says = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{says}");
    assert!(says.contains("RAYON_NUM_THREADS 100000"), "{says}");
    let run = qoft(&["inspect", &model, "--threads=10000"]);
    assert!(run.stderr.contains("--threads 10000"), "{}", run.stderr);
}

#[test]
fn no_threads_are_an_error() {
    for command in ["eval", "train", "generate", "merge", "inspect"] {
        let run = qoft(&[command, "--threads", "0"]);
        assert_eq!(run.code, Some(2), "{command}");
        assert!(run.stderr.contains("--threads"), "{}", run.stderr);
    }
}
