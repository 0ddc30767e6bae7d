//! Bytes changed at random places: a command may fail, but never stops abnormally.

use std::fs;
use std::path::Path;

use crate::common::{arg, copy_fixture, fixture, names, qoft};
use tempfile::tempdir;

/// A small generator of numbers (xorshift64), so that every run makes the same changes.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Where the next change goes: the header's length, the header, the rest.
fn place(random: &mut Random, bytes: &[u8], header: usize) -> usize {
    match random.below(10) {
        0 => random.below(8.min(bytes.len())),
        1..=6 => random.below((8 + header).min(bytes.len())),
        _ => random.below(bytes.len()),
    }
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>, header: usize) {
    for _ in 0..=random.below(3) {
        let at = place(random, bytes, header);
        match random.below(8) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = b'0' + random.below(10) as u8,
            2 => {
                bytes.remove(at);
            }
            3 => bytes.insert(at, b'9'),
            _ => bytes[at] ^= 1 << random.below(8),
        }
        if bytes.len() < 2 {
            return;
        }
    }
}

#[track_caller]
fn survives(args: &[&str], work: &Path, round: usize) {
    let run = qoft(args);
    let says = &run.stderr;
    assert!(
        matches!(run.code, Some(0 | 1)),
        "round {round}, {args:?}: {:?} {says}",
        run.code
    );
    assert!(
        !says.contains("panicked"),
        "round {round}, {args:?}: {says}"
    );
    if run.code == Some(1) {
        assert_eq!(run.stdout, "", "round {round}, {args:?}");
        // Warnings may come first: of a tensor that lost its name, for example.
        let mut lines = says
            .lines()
            .skip_while(|line| line.starts_with("warning: "));
        assert!(
            lines.next().is_some_and(|line| line.starts_with("error: ")),
            "round {round}, {args:?}: {says}"
        );
        assert_eq!(names(work), ["model"], "round {round}, {args:?}");
    }
}

#[test]
fn damaged_bytes_never_stop_the_program() {
    let rows = fixture("train/nf4_all_linear/rows.jsonl");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..150 {
        let work = tempdir().expect("a folder");
        let model = copy_fixture("models/llama_nf4", work.path(), "model");
        let (name, header) = match round % 3 {
            0 => ("config.json", usize::MAX / 2),
            _ => ("model.safetensors", 10_000),
        };
        let path = model.join(name);
        let mut bytes = fs::read(&path).expect("a file");
        damage(&mut random, &mut bytes, header);
        fs::write(&path, bytes).expect("a written file");

        survives(&["inspect", arg(&model)], work.path(), round);
        survives(
            &["eval", "--model", arg(&model), "--data", &rows],
            work.path(),
            round,
        );
        let out = work.path().join("out");
        survives(
            &["dequantize", arg(&model), "--output", arg(&out)],
            work.path(),
            round,
        );
    }
}
