//! The behaviour of every backend, on files that transformers, FBGEMM and AutoFP8's way of naming
//! lead to.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn subject() -> Subject {
    Subject::new(&qoft_fp8::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/fp8"))
        .settings([
            json!({"quant_method": "fp8"}),
            json!({"quant_method": "fp8", "weight_block_size": [32, 64], "scale_fmt": "ue8m0"}),
            json!({"quant_method": "fp8", "weight_block_size": null}),
            json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
        ])
}

/// One after the other, since memory is measured.
#[test]
fn conforms_with_plain_and_with_quantized_inputs() {
    subject().check();
    subject().options(&["fp8.activations=true"]).check();
}
