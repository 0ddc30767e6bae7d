//! The behaviour of every backend, on files whose weights transformers decoded.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    Subject::new(&qoft_mxfp4::REGISTRATION)
        .settings([json!({"quant_method": "mxfp4"})])
        .folders(qoft_fixtures::folders("schemes/mxfp4"))
        .check();
}
