//! The behaviour of every backend, on files that hqq and transformers wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let mut folders = qoft_fixtures::folders("schemes/hqq");
    // A pickle, for which there is another test.
    folders.retain(|folder| !folder.join("qmodel.pt").exists());
    let config = |nbits: f64, group_size: Option<u32>, axis: u32| {
        let params = json!({
            "nbits": nbits, "group_size": group_size, "axis": axis, "channel_wise": true,
            "optimize": true, "view_as_float": false,
        });
        json!({"quant_method": "hqq", "quant_config": {"weight_quant_params": params}})
    };
    let settings = [
        config(4.0, Some(64), 1),
        config(8.0, None, 0),
        config(3.0, Some(16), 0),
        config(1.58, Some(8), 1),
    ];
    Subject::new(&qoft_hqq::REGISTRATION)
        .settings(settings)
        .folders(folders)
        .check();
}
