//! The behaviour of every backend, on files that GPTQModel wrote.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_gptq::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/gptq"))
        .check();
}
