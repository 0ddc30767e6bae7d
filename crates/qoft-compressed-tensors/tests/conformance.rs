//! The behaviour of every backend, on files that the library wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let group = |weights| {
        let group = json!({"targets": ["Linear"], "weights": weights,
            "input_activations": {"num_bits": 8, "strategy": "token", "dynamic": true}});
        json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": group}})
    };
    Subject::new(&qoft_compressed_tensors::REGISTRATION)
        .folders(qoft_fixtures::folders("schemes/compressed-tensors"))
        .settings([
            json!({"num_bits": 4, "group_size": 32}),
            json!({"num_bits": 3, "strategy": "channel", "symmetric": false}),
            json!({"num_bits": 8, "strategy": "tensor", "symmetric": false}),
            json!({"num_bits": 8, "type": "float", "strategy": "channel"}),
            json!({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 48]}),
            json!({"num_bits": 4, "type": "float", "group_size": 16}),
            json!({"num_bits": 4, "type": "float", "group_size": 32}),
            group(json!({"num_bits": 8, "strategy": "channel", "symmetric": false})),
            group(json!({"num_bits": 8, "type": "float", "strategy": "channel"})),
        ])
        .check();
}
