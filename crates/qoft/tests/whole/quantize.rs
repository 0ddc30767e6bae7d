//! Dense models that are quantized while they are loaded have the bytes that transformers and
//! bitsandbytes make of them.

use std::collections::BTreeMap;

use qoft::QuantizeOptions;
use qoft::core::{BackendOptions, Dtype, Error, Keys, Nearest, Registry};
use qoft::models::{Architectures, ModelFolder};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A case of the fixtures.
#[derive(Deserialize)]
struct Case {
    model: String,
    given: Value,
    written: Value,
    /// Dtype, shape and SHA-256 of each tensor.
    tensors: BTreeMap<String, (String, Vec<usize>, String)>,
}

fn cases() -> BTreeMap<String, Case> {
    let text = std::fs::read_to_string(qoft_fixtures::path("quantize/cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn open(model: &str) -> ModelFolder {
    let path = qoft_fixtures::path(&format!("quantize/{model}"));
    ModelFolder::open(path, &Architectures::linked().unwrap()).unwrap()
}

fn quantized(
    folder: &ModelFolder,
    config: &Value,
    options: &QuantizeOptions,
) -> Result<ModelFolder, Error> {
    let registry = Registry::linked()?;
    let keys = Keys::new("config", config.clone());
    let quantization = registry.quantization_of(&keys)?;
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default())?;
    let mut last = (0, 1);
    let progress = &mut |done, total| last = (done, total);
    let found = qoft::quantize(folder, &schemes, &quantization, options, &Nearest, progress)?;
    assert_eq!(last.0, last.1, "all layers are done");
    Ok(found)
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::U8 => "uint8",
        Dtype::I8 => "int8",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F32 => "float32",
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(name: &str, case: &Case, found: &ModelFolder) {
    let checkpoint = found.checkpoint();
    assert_eq!(
        checkpoint.quantization_config(),
        Some(&case.written),
        "{name}"
    );
    let names: Vec<&str> = checkpoint.names().collect();
    let expected: Vec<&str> = case.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, expected, "{name}");
    for (tensor, (dtype, shape, digest)) in &case.tensors {
        let found = checkpoint.tensor(tensor).unwrap();
        let case = format!("{name}: {tensor}");
        assert_eq!(torch_name(found.dtype()), dtype, "{case}");
        assert_eq!(found.shape(), shape, "{case}");
        assert_eq!(
            &format!("{:x}", Sha256::digest(found.bytes())),
            digest,
            "{case}"
        );
    }
}

#[test]
fn every_byte_is_that_of_the_library() {
    let cases = cases();
    assert!(cases.len() >= 10);
    for (name, case) in &cases {
        let found = quantized(&open(&case.model), &case.given, &QuantizeOptions::default());
        check(name, case, &found.unwrap());
    }
}

#[test]
fn a_cache_is_used_the_second_time() {
    let cases = cases();
    let (first, other) = (&cases["skips"], &cases["default"]);
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let mut options = QuantizeOptions::default();
    options.cache = Some(cache.clone());
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&cache)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let run = |case: &Case| quantized(&open(&case.model), &case.given, &options).unwrap();
    check("first", first, &run(first));
    let [file] = files().try_into().unwrap();
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    check("again", first, &run(first));
    assert_eq!(
        std::fs::metadata(&file).unwrap().modified().unwrap(),
        written
    );
    // The same model with other settings has a file of its own.
    check("other", other, &run(other));
    assert_eq!(files().len(), 2);
    // A damaged file is written anew.
    std::fs::write(&file, b"damaged").unwrap();
    check("damaged", first, &run(first));
    assert!(std::fs::metadata(&file).unwrap().len() > 1000);
    check("mended", first, &run(first));
}

#[test]
fn settings_leave_single_layers_dense() {
    let int8 = json!({"_type": "Int8WeightOnlyConfig", "_data": {}});
    let by_name = json!({"re:.*\\.k_proj": null, "_default": int8});
    let torchao = json!({"_type": "FqnToConfig", "_data": {"fqn_to_config": by_name}});
    for config in [
        json!({"quant_method": "torchao", "quant_type": {"default": torchao}}),
        json!({"quant_method": "gptq", "group_size": 32, "dynamic": {"-:.*\\.k_proj": {}}}),
    ] {
        let found = quantized(&open("llama_f32"), &config, &QuantizeOptions::default()).unwrap();
        let checkpoint = found.checkpoint();
        let schemes = Registry::linked()
            .unwrap()
            .open(checkpoint, &BackendOptions::default())
            .unwrap();
        for layer in ["q_proj", "k_proj"] {
            let path = format!("model.layers.1.self_attn.{layer}");
            let claimed = schemes.find(found.source(&path)).unwrap();
            assert_eq!(claimed.is_quantized(), layer == "q_proj", "{config}");
        }
        // The same settings are read again from what is written.
        let written = Keys::new("written", checkpoint.quantization_config().unwrap().clone());
        let again = Registry::linked()
            .unwrap()
            .quantization_of(&written)
            .unwrap();
        let stays = |layer: &str| {
            let path = format!("model.layers.1.self_attn.{layer}");
            again.stays_dense(&path, [64, 64]).unwrap()
        };
        assert!(stays("k_proj") && !stays("q_proj"), "{config}");
    }
}

#[test]
fn what_cannot_be_quantized_says_why() {
    let fails = |folder: &ModelFolder, config: Value, skips: Option<&str>, parts: &[&str]| {
        let mut options = QuantizeOptions::default();
        options.skips = skips.map(|skip| vec![skip.to_owned()]);
        let error = quantized(folder, &config, &options).map(drop).unwrap_err();
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    };
    let dense = open("llama_f32");
    let nf4 = json!({"load_in_4bit": true});
    fails(
        &dense,
        nf4.clone(),
        Some("model|lm_head"),
        &["llama_f32", "no linear layer"],
    );
    fails(&dense, nf4.clone(), Some("("), &["`(`"]);
    // Rows of 96 codes fill no tile.
    let eetq = json!({"quant_method": "eetq"});
    fails(&dense, eetq, None, &["(eetq)", "multiples of 64"]);
    let quantized = qoft_fixtures::path("models/llama_nf4");
    let quantized = ModelFolder::open(quantized, &Architectures::linked().unwrap()).unwrap();
    fails(
        &quantized,
        nf4,
        None,
        &["llama_nf4", "quantized already (bnb-4bit)"],
    );
}

#[test]
fn what_is_none_of_the_model_stays_dense_and_the_configuration_says_so() {
    let path = qoft_fixtures::path("models/gemma3");
    let folder = ModelFolder::open(path, &Architectures::linked().unwrap()).unwrap();
    let method = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    let found = quantized(&folder, &method, &QuantizeOptions::default()).unwrap();
    let checkpoint = found.checkpoint();
    let skips = &checkpoint.config()["quantization_config"]["llm_int8_skip_modules"];
    assert_eq!(*skips, json!(["model.vision_tower", "lm_head"]));
    let dtype = |name: &str| checkpoint.get(name).unwrap().dtype();
    let layer = "encoder.layers.0.self_attn.q_proj.weight";
    assert_eq!(dtype(&format!("model.vision_tower.{layer}")), Dtype::F32);
    let layer = "layers.0.self_attn.q_proj.weight";
    assert_eq!(dtype(&format!("model.language_model.{layer}")), Dtype::U8);
}
