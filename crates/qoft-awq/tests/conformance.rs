//! The behaviour of every backend, on files that AutoAWQ and GPTQModel wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let config = |version: &str, group_size: i32, zero_point: bool| {
        json!({
            "quant_method": "awq", "bits": 4, "group_size": group_size, "version": version,
            "zero_point": zero_point,
        })
    };
    let settings = [
        config("gemm", 32, true),
        config("gemm", -1, false),
        config("gemv", 64, true),
    ];
    Subject::new(&qoft_awq::REGISTRATION)
        .settings(settings)
        .folders(qoft_fixtures::folders("schemes/awq"))
        .check();
}
