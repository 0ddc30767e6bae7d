//! The behaviour of every backend, on layers of all block types.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let folder = qoft_fixtures::path("gguf/layers");
    Subject::new(&qoft_gguf::REGISTRATION)
        .folders([folder])
        .check();
}
