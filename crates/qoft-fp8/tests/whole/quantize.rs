//! Dense weights become the bytes that transformers and FBGEMM make of them.

use qoft_conformance::quantized;
use qoft_fp8::REGISTRATION;
use qoft_scheme::{Checkpoint, Keys, Matrix, Nearest, Registry};
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/fp8") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        let written_by_others = ["block1x32_bytes", "rows", "block64_bf16"].contains(&case)
            || case.starts_with("tensor_");
        if written_by_others || !folder.join("source.safetensors").is_file() {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            layers += usize::from(tensor.found.suffix == "weight");
            tensor.check();
        }
    }
    assert!(layers >= 7, "only {layers} layers");
}

#[test]
fn impossible_settings_are_refused() {
    let registry = Registry::new([&REGISTRATION]).unwrap();
    for (settings, word) in [
        (json!({"activation_scheme": "static"}), "calibration"),
        (json!({"weight_block_size": [0, 128]}), "weight_block_size"),
        (json!({"scale_fmt": "e8m0"}), "scale_fmt"),
        (
            json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": -1}),
            "activation_scale_ub",
        ),
        (json!({"quant_method": "gptq"}), "gptq"),
    ] {
        let settings = Keys::new("settings", settings);
        let error = registry.quantization("fp8", &settings).err().unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
    let quantization = registry.quantization("fp8", &Keys::new("settings", json!({})));
    let weight = Matrix::new(vec![1.0; 128 * 192], [128, 192]);
    let format = qoft_scheme::kernels::FloatFormat::F32;
    let error = quantization
        .unwrap()
        .quantize("a.b", weight, format, &Nearest);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`a.b`") && error.contains("128 × 192"),
        "{error}"
    );
}
