//! The behaviour of every backend, on files that the library wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let settings = |weights, activations| {
        let group = json!({
            "targets": ["Linear"],
            "weights": weights,
            "input_activations": activations,
        });
        json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": group}})
    };
    let plain = |weights| settings(weights, Value::Null);
    let dynamic = json!({"num_bits": 8, "strategy": "token", "dynamic": true});
    let float = |more: Value| {
        let mut weights = json!({"type": "float"});
        let weights_of = weights.as_object_mut().expect("an object");
        weights_of.extend(more.as_object().expect("an object").clone());
        weights
    };
    Subject::new(&qoft_compressed_tensors::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/compressed-tensors"))
        .settings([
            plain(json!({"num_bits": 4, "group_size": 32})),
            plain(json!({"num_bits": 3, "strategy": "channel", "symmetric": false})),
            plain(json!({"num_bits": 8, "strategy": "tensor", "symmetric": false})),
            plain(float(json!({"num_bits": 8, "strategy": "channel"}))),
            plain(float(
                json!({"num_bits": 8, "strategy": "block", "block_structure": [32, 48]}),
            )),
            plain(float(json!({"num_bits": 4, "group_size": 16}))),
            plain(float(json!({"num_bits": 4, "group_size": 32}))),
            settings(
                json!({"num_bits": 8, "strategy": "channel", "symmetric": false}),
                dynamic.clone(),
            ),
            settings(
                float(json!({"num_bits": 8, "strategy": "channel"})),
                dynamic,
            ),
        ])
        .check();
}
