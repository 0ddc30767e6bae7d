//! The behaviour of every backend, on files that modelopt exported.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let settings = ["W4A16_NVFP4", "FP8_PER_CHANNEL_PER_TOKEN"];
    let settings = settings.map(|name| json!({"quant_method": "modelopt", "quant_algo": name}));
    Subject::new(&qoft_modelopt::REGISTRATION)
        .settings(settings)
        .folders(qoft_fixtures::folders("schemes/modelopt"))
        .check();
}
