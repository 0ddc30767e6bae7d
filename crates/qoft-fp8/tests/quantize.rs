//! Dense weights become the bytes that transformers and FBGEMM make of them.

use qoft_scheme::{Checkpoint, Keys, Matrix, Nearest, Registry};
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    let registry = Registry::new([&qoft_fp8::REGISTRATION]).unwrap();
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/fp8") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        let written_by_others = ["block1x32_bytes", "rows", "block64_bf16"].contains(&case)
            || case.starts_with("tensor_");
        let source = folder.join("source.safetensors");
        if written_by_others || !source.is_file() {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.config()["quantization_config"].clone();
        let settings = Keys::new("settings", settings);
        let quantization = registry.quantization("fp8", &settings).unwrap();
        let work = tempfile::tempdir().unwrap();
        std::fs::copy(source, work.path().join("model.safetensors")).unwrap();
        std::fs::write(work.path().join("config.json"), "{}").unwrap();
        let source = Checkpoint::open(work.path()).unwrap();
        for name in source.names() {
            let path = name.strip_suffix(".weight").unwrap();
            let tensor = source.tensor(name).unwrap();
            let weight = Matrix::new(tensor.to_f32().unwrap(), tensor.matrix().unwrap());
            let format = tensor.float_format().unwrap();
            let found = quantization.quantize(path, weight, format, &Nearest);
            for found in found.unwrap() {
                let expected = library.tensor(&found.name()).unwrap();
                let what = format!("{case}: {}", found.name());
                assert_eq!(expected.dtype(), found.dtype, "{what}");
                assert_eq!(expected.shape(), found.shape, "{what}");
                let pairs = expected.bytes().iter().zip(&found.bytes);
                if let Some((at, (expected, found))) = pairs.enumerate().find(|(_, (a, b))| a != b)
                {
                    panic!("{what}: byte {at} is {found:#x}, expected {expected:#x}");
                }
            }
            layers += 1;
        }
    }
    assert!(layers >= 7, "only {layers} layers");
}

#[test]
fn impossible_settings_are_refused() {
    let registry = Registry::new([&qoft_fp8::REGISTRATION]).unwrap();
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
        error.contains("`a.b`") && error.contains("[128, 192]"),
        "{error}"
    );
}
