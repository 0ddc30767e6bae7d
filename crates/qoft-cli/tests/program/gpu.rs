//! The program on a GPU: `cargo xtask test-gpu` runs these tests.

use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::tempdir;

use crate::common::{arg, copy_fixture, fixture, qoft};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

#[track_caller]
fn good(args: &[&str]) -> String {
    let run = qoft(args);
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    run.stdout
}

/// All values of an adapter.
fn values(folder: &Path) -> Vec<f32> {
    let bytes = std::fs::read(folder.join("adapter_model.safetensors")).expect("an adapter");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut tensors = tensors.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let bytes = tensors.iter().flat_map(|(_, tensor)| tensor.data());
    let bytes: Vec<u8> = bytes.copied().collect();
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn training_evaluation_and_generation_equal_the_cpus() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = qoft_fixtures::path("tokenizer").join(name);
        std::fs::copy(from, model.join(name)).expect("a copied file");
    }
    let (model, rows) = (arg(&model), fixture(ROWS));
    let mut runs = ["cpu", "wgpu"].map(|device| {
        let adapter = work.path().join(device);
        let on = ["--model", model, "--device", device];
        let data = ["--data", &rows, "--batch-size", "2"];
        let train = ["--output", arg(&adapter), "--max-steps", "3"];
        good(&[&["train"], &on[..], &data, &train].concat());
        let with = ["--adapter", arg(&adapter)];
        let loss = good(&[&["eval", "--json"], &on[..], &data, &with].concat());
        let loss: Value = serde_json::from_str(&loss).expect("JSON");
        let options = ["--prompt", "abc", "--max-new-tokens", "5"];
        let text = good(&[&["generate"], &on[..], &with, &options].concat());
        (
            values(&adapter),
            loss["loss"].as_f64().expect("a loss"),
            text,
        )
    });
    let (cpu, gpu) = runs.split_at_mut(1);
    let ((values, loss, text), (on_gpu, gpu_loss, gpu_text)) = (&cpu[0], &gpu[0]);
    assert!(values.iter().any(|v| v.abs() > 1e-4), "nothing was trained");
    for (a, b) in values.iter().zip(on_gpu) {
        assert!((a - b).abs() < 2e-5, "{a} {b}");
    }
    assert!((loss - gpu_loss).abs() < 1e-4, "{loss} {gpu_loss}");
    assert_eq!(text, gpu_text);
}

#[test]
fn a_machine_without_gpu_says_what_it_needs() {
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let output = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args([
            "eval", "--model", &model, "--data", &rows, "--device", "wgpu",
        ])
        // The loaders of Vulkan and OpenGL find no driver then.
        .env("VK_DRIVER_FILES", "/nowhere")
        .env("VK_ICD_FILENAMES", "/nowhere")
        .env("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere")
        .env("LIBGL_DRIVERS_PATH", "/nowhere")
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("mesa-vulkan-drivers"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
