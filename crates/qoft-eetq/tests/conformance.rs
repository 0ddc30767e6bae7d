//! The behaviour of every backend, on files that EETQ wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_eetq::REGISTRATION)
        .settings([json!({"quant_method": "eetq", "weights": "int8"})])
        .folders(qoft_fixtures::folders("schemes/eetq"))
        .check();
}
