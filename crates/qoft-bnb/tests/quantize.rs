//! Dense weights become the bytes that bitsandbytes makes of them on a CPU.

use std::path::Path;

use qoft_bnb::{REGISTRATION_4BIT, REGISTRATION_8BIT};
use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{
    Checkpoint, Keys, Matrix, Nearest, NewTensor, Quantization, QuantizedModel, Registry, Result,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn quantization(backend: &str, settings: &Value) -> Result<Quantization> {
    let registry = Registry::new([&REGISTRATION_4BIT, &REGISTRATION_8BIT])?;
    registry.quantization(backend, &Keys::new("settings", settings.clone()))
}

/// The settings that a folder of the fixtures was made with, by transformers' names.
fn settings(variant: &Value) -> (&'static str, Value) {
    match variant["quant_type"].as_str() {
        Some("int8") => ("bnb-8bit", json!({"load_in_8bit": true})),
        _ => (
            "bnb-4bit",
            json!({
                "load_in_4bit": true,
                "bnb_4bit_quant_type": variant["quant_type"],
                "bnb_4bit_use_double_quant": variant["double_quant"],
                "bnb_4bit_quant_storage": variant["storage"],
                "blocksize": variant["blocksize"],
            }),
        ),
    }
}

fn check(folder: &Path, variant: &Value) -> usize {
    let source = std::fs::read(folder.join("source.safetensors")).unwrap();
    let source = SafeTensors::deserialize(&source).unwrap();
    let library = Checkpoint::open(folder).unwrap();
    let (backend, settings) = settings(variant);
    for (name, tensor) in source.iter() {
        let path = name.strip_suffix(".weight").unwrap();
        let format = qoft_scheme::float_format(tensor.dtype()).unwrap();
        let shape: [usize; 2] = tensor.shape().try_into().unwrap();
        let mut values = vec![0.0; shape[0] * shape[1]];
        format.decode(tensor.data(), &mut values);
        let weight = Matrix { shape, values };
        let quantization = quantization(backend, &settings).unwrap();
        let found = quantization.quantize(path, weight, format, &Nearest);
        let found = found.unwrap();
        let bias = format!("{path}.bias");
        let expected = library.under(path).filter(|name| *name != bias);
        let mut names: Vec<String> = found.iter().map(NewTensor::name).collect();
        names.sort();
        assert_eq!(expected.collect::<Vec<_>>(), names, "{}", folder.display());
        for found in found {
            let expected = library.tensor(&found.name()).unwrap();
            let case = format!("{}: {}", folder.display(), found.name());
            assert_eq!(expected.dtype(), found.dtype, "{case}");
            assert_eq!(expected.shape(), found.shape, "{case}");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if found.suffix.contains("quant_state") {
                assert_eq!(text(expected.bytes()), text(&found.bytes), "{case}");
            }
            let differ = expected
                .bytes()
                .iter()
                .zip(&found.bytes)
                .position(|(a, b)| a != b);
            if let Some(at) = differ {
                let (expected, found) = (expected.bytes()[at], found.bytes[at]);
                panic!("{case}: byte {at} is {found}, expected {expected}");
            }
        }
    }
    source.len()
}

#[test]
fn the_bytes_are_the_librarys() {
    let variants = qoft_fixtures::path("bnb/variants.json");
    let variants = std::fs::read_to_string(variants).unwrap();
    let variants: Value = serde_json::from_str(&variants).unwrap();
    let mut layers = 0;
    for (name, variant) in variants.as_object().unwrap() {
        layers += check(&qoft_fixtures::path(&format!("bnb/{name}")), variant);
    }
    assert!(layers >= 42, "only {layers} layers");
}

#[test]
fn settings_that_the_library_does_not_have_are_refused() {
    let weight = Matrix {
        shape: [3, 7],
        values: vec![0.5; 21],
    };
    let quantize = |backend: &str, settings: &Value, weight: &Matrix| {
        let quantization = quantization(backend, settings)?;
        quantization.quantize("proj", weight.clone(), FloatFormat::F32, &Nearest)
    };
    let fails = |backend: &str, settings: Value, parts: &[&str]| {
        let error = quantize(backend, &settings, &weight).unwrap_err();
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    };
    fails(
        "bnb-4bit",
        json!({"bnb_4bit_quant_type": "int4"}),
        &["settings", "bnb_4bit_quant_type", "fp4 or nf4", "int4"],
    );
    for blocksize in [json!(0), json!(48), json!(8192), json!("x")] {
        let settings = json!({"blocksize": blocksize});
        fails("bnb-4bit", settings, &["settings", "`blocksize`"]);
    }
    // 11 bytes are no halves.
    let halves = json!({"bnb_4bit_quant_storage": "float16"});
    fails("bnb-4bit", halves, &["`proj` (bnb-4bit)", "11 bytes"]);
    fails("bnb-2bit", json!({}), &["bnb-2bit", "bnb-8bit, bnb-4bit"]);
    let large = Matrix {
        shape: [1, 2],
        values: vec![1.0, 1e5],
    };
    let error = quantize("bnb-8bit", &json!({}), &large).unwrap_err();
    assert!(error.to_string().contains("`proj` (bnb-8bit)"), "{error}");
}

#[test]
fn the_configuration_is_transformers_own() {
    let registry = Registry::new([&REGISTRATION_4BIT, &REGISTRATION_8BIT]).unwrap();
    let written = |config: Value| {
        let quantization = registry.quantization_of(&Keys::new("config", config))?;
        let model = QuantizedModel::new(FloatFormat::Bf16, None, &[]);
        Ok::<_, qoft_scheme::Error>((quantization.backend(), quantization.config(&model)))
    };
    let given = json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
    });
    let expected = json!({
        "quant_method": "bitsandbytes",
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": false,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": null,
        "llm_int8_threshold": 6.0,
    });
    assert_eq!(written(given).unwrap(), ("bnb-4bit", expected));
    let (backend, config) = written(json!({"load_in_8bit": true})).unwrap();
    assert_eq!(
        (backend, &config["load_in_8bit"]),
        ("bnb-8bit", &json!(true))
    );
    let error = written(json!({"quant_method": "gguf"})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`gguf` cannot quantize dense weights here; those that can: bnb-8bit, bnb-4bit"
    );
    assert!(written(json!({"load_in_8bit": true, "load_in_4bit": true})).is_err());
}
