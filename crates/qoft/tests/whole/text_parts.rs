//! The text part of models that read pictures as well.

use std::path::{Path, PathBuf};

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::{Checkpoint, Nearest, Schemes};
use qoft::peft::{self, AdapterFolder, Families};
use qoft::train::model_facts;
use qoft::{MergeOptions, MergeTarget, ScaledAdapter, merge};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model(case: &str) -> PathBuf {
    qoft_fixtures::path(&format!("models/{case}"))
}

/// Whether a tensor is one of what reads pictures, in files of any version.
fn sees(name: &str) -> bool {
    name.contains("vision_tower.") || name.contains("multi_modal_projector.")
}

/// A copy of an adapter with the names that older versions of transformers had.
fn with_older_names(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let config = "adapter_config.json";
    std::fs::copy(folder.join(config), copy.path().join(config)).unwrap();
    let file = "adapter_model.safetensors";
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let older = |name: String| {
        let name = name.replace("model.language_model.", "language_model.model.");
        name.replace("model.model.vision_tower.", "model.vision_tower.")
    };
    let tensors = tensors.tensors().into_iter();
    let tensors = tensors.map(|(name, tensor)| (older(name), tensor));
    safetensors::serialize_to_file(tensors, None, &copy.path().join(file)).unwrap();
    copy
}

/// PEFT's `all-linear` means the layers that read pictures, too: they stay as they are.
#[test]
fn adapters_of_peft_leave_pictures_alone() {
    for (adapter, case) in [
        ("mistral3_all_linear", "mistral3"),
        ("gemma3_text_part", "gemma3"),
    ] {
        let folder = qoft_fixtures::path(&format!("train/{adapter}"));
        let expected = json(&folder.join("losses.json"))["final_loss"]
            .as_f64()
            .unwrap();
        let text = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
        let row = |line: &str| serde_json::from_str::<Value>(line).unwrap()["input_ids"].take();
        let rows = rows(&text.lines().map(row).collect());
        let older = with_older_names(&folder);
        for folder in [folder.as_path(), older.path()] {
            check(folder, case, &rows, expected);
        }
    }
}

fn check(folder: &Path, case: &str, rows: &[Vec<i32>], expected: f64) {
    let (mut with, families) = (load(&model(case), &[]), Families::linked().unwrap());
    let (plain, device) = (with.clone(), Device::flex());
    let facts = model_facts(plain.spec());
    peft::load(&mut with, folder, &families, facts, "default", &device).unwrap();

    let (base, work) = (open(&model(case)), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(base.checkpoint()).unwrap();
    let adapters = [ScaledAdapter::new(
        AdapterFolder::open(folder, &families).unwrap(),
        1.0,
    )];
    let (output, same) = (
        work.path().join("merged"),
        MergeTarget::SameScheme(&Nearest),
    );
    let options = MergeOptions::new(same);
    let report = merge(&base, &schemes, &adapters, options, &output, &|_, _| ()).unwrap();
    assert!(report.layers.iter().all(|layer| !sees(&layer.name)));
    for found in [loss(&with, rows), loss(&load(&output, &[]), rows)] {
        assert!(
            (found - expected).abs() < 2e-5 * expected,
            "{case}: {found} {expected}"
        );
    }
    let (written, before) = (Checkpoint::open(&output).unwrap(), base.checkpoint());
    let seen: Vec<&str> = before.names().filter(|name| sees(name)).collect();
    assert!(seen.len() > 5);
    for name in seen {
        assert!(
            written
                .tensor(name)
                .unwrap()
                .is_same(&before.tensor(name).unwrap()),
            "{name}"
        );
    }
    let rank = 3.try_into().unwrap();
    let lora = work.path().join("lora");
    let lora = qoft::export_lora(&base, &schemes, &adapters, rank, &lora, &|_, _| ()).unwrap();
    assert!(lora.layers.iter().all(|layer| !sees(&layer.name)));
}
