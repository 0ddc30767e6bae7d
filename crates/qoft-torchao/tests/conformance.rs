//! The behaviour of every backend, on files that transformers saved.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn conforms() {
    let of = |data| json!({"quant_type": {"default": data}});
    let settings = [
        json!({}),
        json!({"quant_type": "int8_weight_only", "granularity": "per_tensor"}),
        json!({"quant_type": "int8_weight_only", "group_size": 32}),
        json!({"quant_type": "float8_weight_only"}),
        json!({"quant_type": "float8_weight_only", "granularity": "per_group", "group_size": 32}),
        json!({"quant_type": "int4_weight_only", "group_size": 32}),
        json!({"quant_type": "intx_weight_only", "weight_dtype": "int5"}),
        of(json!({
            "_type": "FqnToConfig",
            "_version": 1,
            "_data": {"fqn_to_config": {
                "_default": {"_type": "Float8WeightOnlyConfig", "_version": 2, "_data": {}},
            }},
        })),
        of(json!({
            "_type": "IntxWeightOnlyConfig",
            "_version": 2,
            "_data": {
                "weight_dtype": {"_type": "torch.dtype", "_data": "int3"},
                "granularity": {"_type": "PerGroup", "_data": {"group_size": 16}},
                "mapping_type": {"_type": "MappingType", "_data": "ASYMMETRIC"},
            },
        })),
    ];
    let settings = settings.map(|mut settings| {
        settings["quant_method"] = "torchao".into();
        settings
    });
    Subject::new(&qoft_torchao::REGISTRATION)
        .settings(settings)
        .folders(qoft_fixtures::folders("schemes/torchao"))
        .check();
}
