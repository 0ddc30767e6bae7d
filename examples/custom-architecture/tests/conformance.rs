//! The behaviour of every architecture, on models that transformers wrote.

use std::path::Path;

// The schemes come with the program.
use qoft_cli as _;
use qoft_conformance::ArchitectureSubject;
use qoft_models::Architectures;
use qoft_stablelm::REGISTRATION;

#[test]
fn conforms() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let folders = ["dense", "options", "nf4"].map(|case| data.join(case));
    let architectures = Architectures::new([&REGISTRATION]).expect("one architecture");
    ArchitectureSubject::new(architectures)
        .folders(folders)
        .check();
}
