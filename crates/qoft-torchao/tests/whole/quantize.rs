//! Dense weights become what torchao makes of them.

use qoft_conformance::quantized;
use qoft_scheme::{Checkpoint, Keys, QuantBackend};
use qoft_torchao::{REGISTRATION, TorchAo};
use serde_json::{Value, json};

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/torchao") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        // Inputs that are quantized too; scales that HQQ finds.
        if ["int8_dynamic", "int4_tiles_hqq"].contains(&case) {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            layers += usize::from(tensor.found.suffix == "_weight_qdata");
            tensor.check();
        }
    }
    // Those of whole models, of two blocks, with the head, of few layers, of some layers.
    assert_eq!(layers, 10 * 7 + 13 + 8 + 3 + 5 + 1);
}

/// `FqnToConfig` with these configurations.
fn by_name(configs: Value) -> Value {
    json!({"quant_type": {"default": {"_type": "FqnToConfig", "_data": {"fqn_to_config": configs}}}})
}

#[test]
fn names_choose_the_configuration() {
    let int8 = json!({"_type": "Int8WeightOnlyConfig", "_data": {}});
    let settings = by_name(json!({
        "a.q.weight": int8,
        "a.q": null,
        "a.k": null,
        "re:a\\..": null,
        "re:b\\.(q|k)\\.weight": int8,
        "re:b\\.q": null,
        "re:c": int8,
    }));
    let stays = |settings: Value, path: &str| {
        let quantizer = TorchAo.quantizer(&Keys::new("settings", settings));
        let quantizer = quantizer.unwrap().unwrap();
        quantizer.stays_dense(path, [64, 96]).unwrap()
    };
    for (path, dense) in [
        ("a.q", false),
        ("a.k", true),
        ("a.v", true),
        ("b.q", false),
        ("b.k", false),
        ("b.v", true),
        ("c", false),
        ("c.q", true),
        ("x", true),
    ] {
        assert_eq!(stays(settings.clone(), path), dense, "{path}");
    }
    let with_default = by_name(json!({"_default": int8, "x": null}));
    assert!(!stays(with_default.clone(), "a.q") && stays(with_default, "x"));
    // What a group does not divide is left out by the library.
    let int4 = |size: usize| json!({"quant_type": "int4_weight_only", "group_size": size});
    assert!(stays(int4(64), "x") && !stays(int4(32), "x"));
}
