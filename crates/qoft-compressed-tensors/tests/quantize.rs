//! Dense weights become the tensors that the library makes of them.

use qoft_scheme::{Checkpoint, Keys, Matrix, Nearest, Registry};
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    let registry = Registry::new([&qoft_compressed_tensors::REGISTRATION]).unwrap();
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/compressed-tensors") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        let source = folder.join("source.safetensors");
        // Their groups are no choice of a library's user.
        if !source.is_file() || case == "mxfp8" || case.starts_with("a8_int4") {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.config()["quantization_config"].clone();
        let settings = Keys::new("settings", settings);
        let quantization = registry
            .quantization("compressed-tensors", &settings)
            .unwrap();
        let work = tempfile::tempdir().unwrap();
        std::fs::copy(source, work.path().join("model.safetensors")).unwrap();
        std::fs::write(work.path().join("config.json"), "{}").unwrap();
        let source = Checkpoint::open(work.path()).unwrap();
        for name in source.names() {
            let path = name.strip_suffix(".weight").unwrap();
            let tensor = source.tensor(name).unwrap();
            let weight = Matrix::new(tensor.to_f32().unwrap(), tensor.matrix().unwrap());
            let format = tensor.float_format().unwrap();
            let found = quantization
                .quantize(path, weight, format, &Nearest)
                .unwrap();
            let bias = usize::from(library.get(&format!("{path}.bias")).is_some());
            assert_eq!(
                library.under(path).count() - bias,
                found.len(),
                "{case}: {path}"
            );
            for found in found {
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
    assert!(layers >= 50, "only {layers} layers");
}

#[test]
fn impossible_settings_are_refused() {
    let registry = Registry::new([&qoft_compressed_tensors::REGISTRATION]).unwrap();
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
