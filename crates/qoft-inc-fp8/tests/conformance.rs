//! The behaviour of every backend, on files that Intel Neural Compressor wrote.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_inc_fp8::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/inc-fp8"))
        .check();
}
