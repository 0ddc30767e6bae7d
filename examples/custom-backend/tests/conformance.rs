//! The behaviour of every backend, on files that transformers packed.

use std::path::PathBuf;

use qoft_bitnet::REGISTRATION;
use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CHECKPOINTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

#[test]
fn conforms() {
    let entries = std::fs::read_dir(CHECKPOINTS).expect("checkpoints");
    let folders = entries.map(|entry| entry.expect("a checkpoint").path());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    Subject::new(&REGISTRATION).folders(folders).check();
}
