//! The behaviour of every backend, on files that transformers wrote.

use std::path::PathBuf;
use std::time::Duration;

use qoft_block_fp8::REGISTRATION;
use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CHECKPOINTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../crates/qoft-fixtures/data/schemes/fp8"
);

/// Fuzzes for a second, or for as many as the environment variable `FUZZ_SECONDS` says.
#[test]
fn conforms() {
    let entries = std::fs::read_dir(CHECKPOINTS).expect("checkpoints");
    let folders = entries.map(|entry| entry.expect("a checkpoint").path());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    let subject = Subject::new(&REGISTRATION).folders(folders);
    subject.check();

    let seconds = std::env::var("FUZZ_SECONDS").map_or(1, |s| s.parse().expect("seconds"));
    let layers = subject.fuzz(Duration::from_secs(seconds), 1);
    println!("{layers} damaged layers, no panic");
}
