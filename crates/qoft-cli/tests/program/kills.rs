//! Processes that are killed at random moments. `QOFT_KILLS=N` kills each kind of run N times.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{arg, fixture, names, qoft, start};
use tempfile::{TempDir, tempdir};

const MODEL: &str = "models/llama_nf4";
const ADAPTER: &str = "adapters/all_linear";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";
/// Kills of each kind of run, unless the environment says another number.
const KILLS: usize = 5;

/// A small generator of numbers (xorshift64), so that every run kills at the same shares of the
/// time that a whole run takes.
struct Random(u64);

impl Random {
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn kills() -> usize {
    let kills = std::env::var("QOFT_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// Starts a command and kills it after a while. Returns whether it had come to its end.
fn kill_after(args: &[&str], time: Duration) -> bool {
    let mut child = start(args);
    std::thread::sleep(time);
    let done = child.try_wait().expect("a child").is_some();
    let _ = child.kill();
    child.wait().expect("an end");
    done
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        match path.is_dir() {
            true => {
                let inner = files(&path).into_iter();
                found.extend(inner.map(|(inner, bytes)| (Path::new(&name).join(inner), bytes)));
            }
            false => found.push((name.into(), fs::read(path).expect("a file"))),
        }
    }
    found
}

/// Times and machines are not the same in two runs.
fn comparable(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files(folder);
    files.retain(|(name, _)| {
        let name = name.to_str().expect("a name");
        !["log.jsonl", "loss.svg", "report.html", "training_args.json"].contains(&name)
    });
    files
}

/// Kills the same training until it is through, and compares with one that was left alone.
fn training(seed: u64, kind: &str, more: &[&str]) {
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let work = tempdir().expect("a folder");
    let args = |out: &str| -> Vec<String> {
        let out = work.path().join(out);
        let args = [
            "train",
            "--model",
            &model,
            "--data",
            &rows,
            "--output",
            arg(&out),
            "--target-modules=all-linear",
            "--learning-rate=1e-2",
            "--save-steps=2",
            "--threads=1",
        ];
        let args = args.iter().chain(more).map(|arg| (*arg).to_owned());
        args.collect()
    };
    let whole = args("whole");
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let began = Instant::now();
    let run = qoft(&whole);
    let time = began.elapsed();
    assert_eq!(run.code, Some(0), "{kind}: {}", run.stderr);
    let expected = comparable(&work.path().join("whole"));

    let mut random = Random(seed);
    let (mut left, mut round) = (kills(), 0);
    while left > 0 {
        round += 1;
        let name = format!("killed-{round}");
        let args = args(&name);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = work.path().join(&name);
        while left > 0 {
            left -= 1;
            if kill_after(&args, time.mul_f64(random.share())) {
                break;
            }
            whole_or_absent(&out, &expected, kind);
        }
        // A run that came to its end does not begin again.
        let is_done = out.join("adapter_config.json").exists() && !out.join(".qoft-lock").exists();
        let code = i32::from(is_done);
        let run = qoft(&args);
        let says = run.stderr;
        assert_eq!(run.code, Some(code), "{kind}, round {round}: {says}");
        let found = comparable(&out);
        let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&found), names(&expected), "{kind}, round {round}");
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(
                found == expected,
                "{kind}, round {round}: {}",
                name.display()
            );
        }
        fs::remove_dir_all(&out).expect("a folder");
    }
}

/// What has its name is as in the run that was left alone.
fn whole_or_absent(out: &Path, expected: &[(PathBuf, Vec<u8>)], kind: &str) {
    for (name, expected) in expected {
        let path = out.join(name);
        if let Ok(found) = fs::read(&path) {
            assert!(found == *expected, "{kind}: {}", path.display());
        }
    }
    for name in [
        "checkpoint-2",
        "checkpoint-4",
        "checkpoint-6",
        "checkpoint-8",
    ] {
        let folder = out.join(name);
        if folder.exists() {
            let has = |file: &str| folder.join(file).exists();
            assert!(
                has("trainer_state.json") && has("optimizer.bin"),
                "{kind}: {name}"
            );
        }
    }
}

#[test]
fn trainings_end_with_the_same_bytes() {
    training(1, "plain", &["--max-steps=8", "--batch-size=2"]);
    training(
        2,
        "accumulation, two epochs",
        &[
            "--num-epochs=2",
            "--batch-size=2",
            "--gradient-accumulation-steps=2",
        ],
    );
    training(
        3,
        "biases and modules, checkpointing",
        &[
            "--max-steps=8",
            "--batch-size=2",
            "--bias=all",
            "--modules-to-save=norm",
            "--gradient-checkpointing",
        ],
    );
    training(
        8,
        "dropout",
        &["--max-steps=8", "--batch-size=2", "--module-dropout=0.3"],
    );
}

/// Kills commands that write a folder, which is there as a whole or not at all.
fn writing(seed: u64, command: &[&str]) {
    let work: TempDir = tempdir().expect("a folder");
    let whole = work.path().join("whole");
    let args = [command, &["--output", arg(&whole)]].concat();
    let began = Instant::now();
    let run = qoft(&args);
    let time = began.elapsed();
    assert_eq!(run.code, Some(0), "{command:?}: {}", run.stderr);
    let expected = files(&whole);
    let mut random = Random(seed);
    let out = work.path().join("out");
    let args = [command, &["--output", arg(&out)]].concat();
    for _ in 0..kills() {
        kill_after(&args, time.mul_f64(random.share()));
        if out.exists() {
            assert!(files(&out) == expected, "{command:?}");
            fs::remove_dir_all(&out).expect("a folder");
        }
    }
    let run = qoft(&args);
    assert_eq!(run.code, Some(0), "{command:?}: {}", run.stderr);
    assert!(files(&out) == expected, "{command:?}");
    assert_eq!(names(work.path()), ["out", "whole"], "{command:?}");
}

#[test]
fn folders_are_there_as_a_whole_or_not_at_all() {
    let (model, adapter) = (fixture(MODEL), fixture(ADAPTER));
    let merge = [
        "merge",
        "--model",
        &model,
        "--adapter",
        &adapter,
        "--report",
    ];
    writing(4, &merge);
    writing(5, &[&merge[..5], &["--dequantize"]].concat());
    writing(6, &["dequantize", &model]);
    let (dense, rows) = (fixture("models/llama"), fixture(ROWS));
    writing(
        9,
        &[
            "quantize",
            "--model",
            &dense,
            "--scheme=hqq,nbits=4,group_size=64",
        ],
    );
    let calibrated = ["--calibration", &rows, "--calibration-rows=4"];
    writing(10, &[&merge[..5], &calibrated].concat());
    let lora = [
        "export",
        "--to=lora",
        "--rank=2",
        "--model",
        &model,
        "--adapter",
        &adapter,
    ];
    writing(7, &lora);
}
