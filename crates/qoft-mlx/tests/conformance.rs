//! The behaviour of every backend, on files that mlx-lm wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let settings = [
        json!({"group_size": 64, "bits": 4}),
        json!({"group_size": 32, "bits": 5, "mode": "affine"}),
        json!({
            "group_size": 64, "bits": 8,
            "model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 3},
        }),
        json!({"group_size": 32, "bits": 4, "mode": "mxfp4"}),
        json!({"mode": "mxfp8"}),
        json!({"mode": "nvfp4"}),
    ];
    Subject::new(&qoft_mlx::REGISTRATION)
        .settings(settings)
        .folders(qoft_fixtures::folders("schemes/mlx"))
        .check();
}
