//! The behaviour of every backend, on files that EETQ wrote.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_eetq::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/eetq"))
        .check();
}
