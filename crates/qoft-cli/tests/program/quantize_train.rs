//! Training on dense models that are quantized on load is PEFT's on what transformers quantizes.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::common::file::TensorFile;
use crate::common::{arg, fixture, json_of};

/// What a configuration of transformers is called on the command line: of bitsandbytes its options, and of
/// other methods a file in the folder `work`.
fn flags(given: &Value, work: &Path) -> Vec<String> {
    if given.get("quant_method").is_some() {
        let file = work.join("quantization_config.json");
        fs::write(&file, given.to_string()).expect("a file");
        return vec![format!("--quantization-config={}", file.display())];
    }
    let flag = |(key, value): (&String, &Value)| {
        let name = format!("--{}", key.replace('_', "-"));
        match value {
            Value::Bool(true) => name,
            value => format!("{name}={}", value.as_str().expect("a word")),
        }
    };
    let given = given.as_object().expect("settings");
    given.iter().map(flag).collect()
}

/// All values of an adapter that starts from zero, in the order of the names.
fn values(folder: &Path) -> Vec<f32> {
    let file = TensorFile::open(&folder.join("adapter_model.safetensors"));
    let mut tensors = file.tensors;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let bytes = tensors.into_iter().flat_map(|(_, tensor)| tensor.data);
    let bytes: Vec<u8> = bytes.collect();
    let words = bytes.as_chunks::<4>().0;
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_training_on_a_model_quantized_on_load_is_that_of_peft() {
    let folders = qoft_fixtures::folders("quantize_train");
    assert!(folders.len() >= 9);
    let data = fixture("quantize_train/rows.jsonl");
    for folder in folders {
        let text = fs::read_to_string(folder.join("reference.json")).expect("a file");
        let reference: Value = serde_json::from_str(&text).expect("JSON");
        let number = |key: &str| reference[key].as_f64().expect("a number");
        let name = reference["model"].as_str().expect("a name");
        let work = tempdir().expect("a folder");
        let (model, flags) = (
            fixture(&format!("quantize/{name}")),
            flags(&reference["given"], work.path()),
        );
        let output = work.path().join("adapter");
        let run = |command: &str, more: &[&str]| {
            let mut args = vec![command, "--model", &model, "--data", &data];
            args.extend(flags.iter().map(String::as_str));
            json_of(&[&args, more].concat())
        };
        let loss = |more: &[&str]| run("eval", more)["loss"].as_f64().expect("a loss");
        let near = |what: &str, found: f64, expected: f64, bound: f64| {
            let text = format!("{flags:?}, {what}: {found}, not {expected}");
            assert!((found - expected).abs() < bound, "{text}");
        };
        near("before", loss(&[]), number("base"), 2e-6);

        let setting = |key: &str| reference[key].to_string();
        let (steps, rate) = (setting("steps"), setting("lr"));
        let (batch, clip) = (setting("batch_size"), setting("max_grad_norm"));
        let mut args = vec!["--output", arg(&output), "--target-modules", "all-linear"];
        args.extend(["--oft-block-size", "16", "--no-shuffle"]);
        args.extend(["--max-steps", &steps, "--batch-size", &batch]);
        args.extend(["--learning-rate", &rate, "--lr-scheduler", "linear"]);
        args.extend(["--warmup-steps", "0", "--weight-decay", "0"]);
        run("train", &[&args[..], &["--max-grad-norm", &clip]].concat());

        // Backward, bitsandbytes multiplies with 4-bit weights that are rounded to the dtype of the file,
        // bf16, and forward with weights that are not. Here both are as they are.
        let (least, bound) = match reference["given"]["load_in_4bit"] == true {
            true => (0.999, 1.5e-3),
            false => (0.999_999, 1e-4),
        };
        let similarity = cosine(&values(&output), &values(&folder));
        assert!(similarity >= least, "{flags:?}: {similarity}");
        let after = loss(&["--adapter", arg(&output)]);
        near("after", after, number("final_loss"), bound);
        // The reference's own adapter has its loss here.
        let theirs = loss(&["--adapter", arg(&folder)]);
        near("their adapter", theirs, number("final_loss"), 5e-6);
    }
}
