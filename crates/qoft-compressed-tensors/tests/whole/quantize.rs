//! Dense weights become the tensors that the library makes of them.

use qoft_compressed_tensors::REGISTRATION;
use qoft_conformance::quantized;
use qoft_scheme::{Checkpoint, Keys, Registry};
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/compressed-tensors") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        // Their groups are no choice of a library's user.
        let chosen = case != "mxfp8" && !case.starts_with("a8_int4");
        if !chosen || !folder.join("source.safetensors").is_file() {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            layers += usize::from(tensor.found.suffix == "weight_scale");
            tensor.check();
        }
    }
    assert!(layers >= 50, "only {layers} layers");
}

#[test]
fn impossible_settings_are_refused() {
    let registry = Registry::new([&REGISTRATION]).unwrap();
    for (settings, word) in [
        (
            json!({"num_bits": 4, "type": "float", "group_size": 64}),
            "NVFP4",
        ),
        (
            json!({"num_bits": 4, "group_size": 32, "actorder": "group"}),
            "calibration",
        ),
        (json!({"config_groups": {}}), "one group"),
        (
            json!({"config_groups": {"g": {"weights": {}, "input_activations": {"num_bits": 8}}}}),
            "calibration",
        ),
        (json!({"quant_method": "gptq"}), "gptq"),
    ] {
        let settings = Keys::new("settings", settings);
        let error = registry
            .quantization("compressed-tensors", &settings)
            .err()
            .unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
}
