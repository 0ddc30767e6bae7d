//! Signals: what is trained is saved, and nothing half done stays.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::common::{Started, arg, end, fixture, lines, names, qoft, start, wait_until};
use tempfile::{TempDir, tempdir};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

fn send(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success());
}

fn long_training(out: &Path, more: &[&str]) -> Vec<String> {
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let args = [
        "train",
        "--model",
        &model,
        "--data",
        &rows,
        "--output",
        arg(out),
        "--batch-size=2",
        "--max-steps=1000000",
        "--save-steps=1000000",
    ];
    let args = args.iter().chain(more).map(|arg| (*arg).to_owned());
    args.collect()
}

/// Sends a signal to a training that is at its steps.
fn stopped(signal: &str, more: &[&str]) -> (TempDir, PathBuf, ExitStatus) {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    let args = long_training(&out, more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = start(&args);
    wait_until("steps", || lines(&out.join("log.jsonl")) > 2);
    send(signal, child.id());
    let status = end(child);
    (work, out, status)
}

#[test]
fn a_training_saves_a_checkpoint_and_says_which_signal_it_was() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let (_work, out, status) = stopped(signal, &[]);
        assert_eq!(status.code(), Some(code), "{signal}");
        let names = names(&out);
        let [checkpoint, rest @ ..] = &names[..] else {
            panic!("{names:?}")
        };
        assert!(checkpoint.starts_with("checkpoint-"), "{names:?}");
        assert_eq!(rest, ["log.jsonl", "loss.svg", "training_args.json"]);
        // It goes on from there.
        let steps: usize = checkpoint["checkpoint-".len()..].parse().expect("a number");
        assert_eq!(lines(&out.join("log.jsonl")), steps);
        let more = format!("--max-steps={}", steps + 1);
        let run = qoft(&["train", "--resume-from", arg(&out), &more]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(lines(&out.join("log.jsonl")), steps + 1);
    }
}

#[test]
fn a_stop_is_seen_in_an_evaluation() {
    let rows = fixture(ROWS);
    let work = tempdir().expect("a folder");
    let many = work.path().join("many.jsonl");
    let text = std::fs::read_to_string(rows).expect("rows");
    std::fs::write(&many, text.repeat(2000)).expect("a file");
    let more = [
        "--eval-data",
        arg(&many),
        "--eval-steps=3",
        "--eval-on-start=false",
    ];
    let (_work, out, status) = stopped("-TERM", &more);
    assert_eq!(status.code(), Some(143));
    assert_eq!(names(&out)[0], "checkpoint-3");
}

#[test]
fn before_the_steps_a_signal_ends_everything_at_once() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    // Reading the data takes long.
    let many = work.path().join("many.jsonl");
    let text = std::fs::read_to_string(fixture(ROWS)).expect("rows");
    std::fs::write(&many, text.repeat(20_000)).expect("a file");
    let args = long_training(&out, &["--eval-data", arg(&many)]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = start(&args);
    wait_until("a lock", || out.join(".qoft-lock").exists());
    send("-INT", child.id());
    assert_eq!(end(child).code(), Some(130));
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    let args = long_training(&out, &[]);
    let mut command = Command::new("nohup");
    let command = command.arg(env!("CARGO_BIN_EXE_qoft")).args(&args);
    let child = Started::new(command.stdin(Stdio::null()));
    let log = out.join("log.jsonl");
    wait_until("steps", || lines(&log) > 2);
    send("-HUP", child.id());
    let before = lines(&log);
    wait_until("more steps", || lines(&log) > before + 5);
    send("-TERM", child.id());
    assert_eq!(end(child).code(), Some(143));
}

#[test]
fn a_second_signal_ends_everything_at_once_and_does_no_harm() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    // A step takes long.
    let many = work.path().join("many.jsonl");
    let text = std::fs::read_to_string(fixture(ROWS)).expect("rows");
    std::fs::write(&many, text.repeat(1000)).expect("a file");
    let model = fixture(MODEL);
    let args = [
        "train",
        "--model",
        &model,
        "--data",
        arg(&many),
        "--output",
        arg(&out),
        "--batch-size=4000",
        "--max-steps=3",
    ];
    let child = start(&args);
    wait_until("a log", || out.join("log.jsonl").exists());
    send("-TERM", child.id());
    std::thread::sleep(Duration::from_millis(50));
    send("-INT", child.id());
    // Of two signals that wait, the system delivers the lower number first.
    let code = end(child).code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    // Nothing of it is in the way of the next run.
    let run = qoft(&args);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn a_merge_that_is_stopped_leaves_nothing() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(MODEL), fixture("adapters/all_linear"));
    let rows = fixture(ROWS);
    let many = work.path().join("many.jsonl");
    let text = std::fs::read_to_string(rows).expect("rows");
    std::fs::write(&many, text.repeat(500)).expect("a file");
    let out = work.path().join("out");
    let args = [
        "merge",
        "--model",
        &model,
        "--adapter",
        &adapter,
        "--calibration",
        arg(&many),
        "--calibration-rows=100000",
        "--output",
        arg(&out),
    ];
    let begun = || {
        names(work.path())
            .iter()
            .any(|name| name.contains("partial"))
    };
    for signal in ["-INT", "-TERM"] {
        let child = start(&args);
        wait_until("a folder", begun);
        std::thread::sleep(Duration::from_millis(200));
        send(signal, child.id());
        let code = end(child).code();
        assert_eq!(code, Some(if signal == "-INT" { 130 } else { 143 }));
        assert_eq!(names(work.path()), ["many.jsonl"]);
    }
    // Killed, it leaves its folder, which any merge to the same place removes.
    let mut child = start(&args);
    wait_until("a folder", begun);
    std::thread::sleep(Duration::from_millis(200));
    child.kill().expect("a kill");
    child.wait().expect("an end");
    assert!(begun());
    let plain = [&args[..5], &args[8..]].concat();
    let run = qoft(&plain);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(names(work.path()), ["many.jsonl", "out"]);
}
