//! The behaviour of every backend, on files that transformers wrote.

use std::path::PathBuf;

use qoft_block_fp8::REGISTRATION;
use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CHECKPOINTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../crates/qoft-fixtures/data/schemes/fp8"
);

#[test]
fn conforms() {
    let entries = std::fs::read_dir(CHECKPOINTS).expect("checkpoints");
    let folders = entries.map(|entry| entry.expect("a checkpoint").path());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    Subject::new(&REGISTRATION).folders(folders).check();
}
