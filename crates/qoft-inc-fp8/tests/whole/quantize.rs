//! Dense weights become the bytes that the library makes of them.

use qoft_conformance::quantized;
use qoft_inc_fp8::REGISTRATION;
use qoft_scheme::{Checkpoint, Keys, Registry};
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    for case in ["gaudi3_dynamic", "gaudi3_rows"] {
        let folder = qoft_fixtures::path("schemes/inc-fp8").join(case);
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        let tensors = quantized(&REGISTRATION, &folder, settings, None);
        assert_eq!(tensors.len(), 14, "{case}");
        for tensor in tensors {
            tensor.check();
        }
    }
}

#[test]
fn what_needs_measurements_is_refused() {
    let registry = Registry::new([&REGISTRATION]).unwrap();
    for (settings, word) in [
        (json!({"use_qdq": "True"}), "calibration"),
        (json!({"dynamic_quantization": false}), "calibration"),
        (json!({"scale_method": "maxabs_hw"}), "scale_method"),
        (json!({"fp8_config": "E3M4"}), "E4M3 or E5M2"),
        (json!({"quant_method": "fp8"}), "fp8"),
    ] {
        let settings = Keys::new("settings", settings);
        let error = registry.quantization("inc-fp8", &settings).err().unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
    // Such a configuration names no method.
    let stated = Keys::new("settings", json!({"fp8_config": "E5M2"}));
    let found = registry.quantization_of(&stated).unwrap();
    assert_eq!(found.backend(), "inc-fp8");
    let other = Keys::new("settings", json!({"bits": 4}));
    let error = registry.quantization_of(&other).err().unwrap().to_string();
    assert!(
        error.contains("quant_method") && error.contains("inc-fp8"),
        "{error}"
    );
}
