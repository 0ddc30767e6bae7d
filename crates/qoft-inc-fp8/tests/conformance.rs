//! The behaviour of every backend, on files that Intel Neural Compressor wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn settings(numbers: &str, method: &str, dtype: &str) -> Value {
    json!({
        "fp8_config": numbers,
        "scale_method": method,
        "hp_dtype": dtype,
        "dynamic_quantization": true,
    })
}

#[test]
fn conforms() {
    Subject::new(&qoft_inc_fp8::REGISTRATION)
        .settings([
            settings("E4M3", "maxabs_pcs_pow2", "fp32"),
            settings("E5M2", "maxabs_arbitrary", "bf16"),
            settings("E4M3", "act_maxabs_pow2_weights_pcs_opt_pow2", "fp16"),
        ])
        .folders(qoft_fixtures::folders("schemes/inc-fp8"))
        .check();
}
