//! Biases and whole modules beside rotations.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::default_device;
use qoft_peft::{self as peft, Families, ModelFacts};
use qoft_train::evaluate;
use qoft_train::train::ADAPTER;
use serde_json::Value;
use tempfile::TempDir;

use super::case::{Case, NEVER, Recorder, load};
use super::reference::check_case;

/// Trained as by PEFT, and PEFT's files read and written.
fn check_own(name: &str) {
    check_case(name);
    let case = Case::new(name);
    let out = TempDir::new().unwrap();
    let (_, _) = case
        .run(&mut Recorder::default(), out.path(), None, None)
        .unwrap();
    assert_eq!(header(out.path()), header(&case.folder), "{name}");

    let mut model = load(&case.model_folder);
    let (model_type, device) = (model.config().model_type.clone(), default_device().unwrap());
    let base = evaluate(&model, &case.dataset, 16, &device, &NEVER, &mut |_, _| {}).unwrap();
    let folder = &case.folder;
    let head = "lm_head";
    peft::load(
        &mut model,
        folder,
        &Families::linked().unwrap(),
        ModelFacts::of_type(&model_type).with_head(head),
        ADAPTER,
        &device,
    )
    .unwrap();
    let adapted = evaluate(&model, &case.dataset, 16, &device, &NEVER, &mut |_, _| {}).unwrap();
    let expected = case.expected["final_loss"].as_f64().unwrap();
    assert!(
        (adapted.loss - expected).abs() < 2e-5,
        "{name} {adapted:?} {expected}"
    );
    assert!(
        (adapted.loss - base.loss).abs() > 0.01,
        "{name}: {}",
        base.loss
    );
}

/// Names, dtypes and shapes in the file of an adapter. PEFT repeats the biases of modules that it
/// saves whole, under the names of what wraps them.
fn header(folder: &Path) -> BTreeMap<String, (Value, Value)> {
    let bytes = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.as_object().unwrap().iter();
    let unused = ["__metadata__", ".modules_to_save.", ".original_module."];
    let tensors = tensors.filter(|(name, _)| !unused.iter().any(|part| name.contains(part)));
    let kind = |tensor: &Value| (tensor["dtype"].clone(), tensor["shape"].clone());
    tensors
        .map(|(name, tensor)| (name.clone(), kind(tensor)))
        .collect()
}

#[test]
fn all_biases() {
    check_own("qwen2_bias_all");
}

#[test]
fn biases_of_targets() {
    check_own("qwen2_bias_oft_only");
}

#[test]
fn biases_embedding_norms_and_mlp_with_decay() {
    check_own("qwen2_own_decay");
}

#[test]
fn the_head_of_a_quantized_model() {
    check_own("nf4_lm_head");
}

#[test]
fn the_head_and_biases_of_a_model_that_is_not_tied() {
    check_own("llama_bias_head");
}

#[test]
fn layers_that_are_stored_as_in_out_positions_and_norms_with_biases() {
    check_own("gpt2_own");
}

#[test]
fn biases_and_modules_train_the_same_block_by_block() {
    for name in ["qwen2_own_decay", "llama_bias_head", "gpt2_own"] {
        let mut case = Case::new(name);
        case.config.gradient_checkpointing = true;
        let out = TempDir::new().unwrap();
        let mut recorder = Recorder::default();
        case.run(&mut recorder, out.path(), None, None).unwrap();
        for (report, loss) in recorder.reports.iter().zip(case.numbers("losses")) {
            assert!((report.loss - loss).abs() < 2e-4, "{name} {report:?}");
        }
    }
}

#[test]
fn an_interrupted_run_with_biases_and_modules_goes_on_as_if_it_had_not_been() {
    let case = Case::new("qwen2_own_decay");
    let [whole, parts] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    case.run(&mut Recorder::default(), whole.path(), None, None)
        .unwrap();
    let mut first = Recorder {
        stop_at: Some(3),
        ..Recorder::default()
    };
    case.run(&mut first, parts.path(), None, None).unwrap();
    let checkpoint = parts.path().join("checkpoint-3");
    let resumed = Some(checkpoint.as_path());
    case.run(&mut Recorder::default(), parts.path(), resumed, None)
        .unwrap();
    let trained = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(trained(whole.path()), trained(parts.path()));
}
