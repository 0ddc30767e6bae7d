//! The behaviour of every backend, on files that GPTQModel wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let config = |bits: u32, group_size: i32, sym: bool, format: &str| {
        json!({
            "quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": sym,
            "desc_act": false, "checkpoint_format": format,
        })
    };
    let settings = [
        config(4, 32, true, "gptq"),
        config(2, 64, false, "gptq_v2"),
        config(3, -1, false, "gptq"),
        config(8, 128, true, "gptq_v2"),
    ];
    Subject::new(&qoft_gptq::REGISTRATION)
        .settings(settings)
        .folders(qoft_fixtures::folders("schemes/gptq"))
        .check();
}
