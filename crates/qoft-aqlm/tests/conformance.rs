//! The behaviour of every backend, on files in the layout of the aqlm package.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_aqlm::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/aqlm"))
        .check();
}
