//! Dense weights become the bytes that bitsandbytes makes of them on a CPU.

use qoft_bnb::{REGISTRATION_4BIT, REGISTRATION_8BIT};
use qoft_conformance::quantized;
use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{
    Keys, Matrix, Nearest, Quantization, QuantizedModel, Registration, Registry, Result,
};
use serde_json::{Value, json};

fn quantization(backend: &str, settings: &Value) -> Result<Quantization> {
    let registry = Registry::new([&REGISTRATION_4BIT, &REGISTRATION_8BIT])?;
    registry.quantization(backend, &Keys::new("settings", settings.clone()))
}

/// The settings that a folder of the fixtures was made with, by transformers' names.
fn settings(variant: &Value) -> (&'static Registration, Value) {
    match variant["quant_type"].as_str() {
        Some("int8") => (&REGISTRATION_8BIT, json!({"load_in_8bit": true})),
        _ => (
            &REGISTRATION_4BIT,
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

#[test]
fn the_bytes_are_the_librarys() {
    let variants = qoft_fixtures::path("bnb/variants.json");
    let variants = std::fs::read_to_string(variants).unwrap();
    let variants: Value = serde_json::from_str(&variants).unwrap();
    let mut layers = 0;
    for (name, variant) in variants.as_object().unwrap() {
        let (registration, settings) = settings(variant);
        let folder = qoft_fixtures::path(&format!("bnb/{name}"));
        for tensor in quantized(registration, folder, &settings, None) {
            tensor.check();
            layers += usize::from(tensor.found.suffix == "weight");
        }
    }
    assert!(layers >= 42, "only {layers} layers");
}

#[test]
fn settings_that_the_library_does_not_have_are_refused() {
    let weight = Matrix::new(vec![0.5; 21], [3, 7]);
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
    let large = Matrix::new(vec![1.0, 1e5], [1, 2]);
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
