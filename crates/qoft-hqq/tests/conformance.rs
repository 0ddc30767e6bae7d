//! The behaviour of every backend, on files that hqq and transformers wrote.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let mut folders = qoft_fixtures::folders("schemes/hqq");
    // A pickle, for which there is another test.
    folders.retain(|folder| !folder.join("qmodel.pt").exists());
    Subject::new(&qoft_hqq::REGISTRATION)
        .folders(folders)
        .check();
}
