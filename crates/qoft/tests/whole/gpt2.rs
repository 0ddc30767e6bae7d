//! GPT-2, whose dense layers store their weights as `[in, out]`: merging, export, limits.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Nearest, Schemes, Walk};
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::train::data::{Dataset, Example};
use qoft::train::{TrainError, evaluate};
use qoft::{MergeOptions, MergeTarget, ScaledAdapter, export_lora, merge};
use serde_json::Value;
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    qoft_fixtures::path(&format!("gpt2/{name}"))
}

fn reference(case: &Path) -> Value {
    let text = std::fs::read_to_string(case.join("reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn adapter(folder: &Path) -> ScaledAdapter {
    ScaledAdapter::new(
        AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
        1.0,
    )
}

fn merged(model: &Path, adapters: &[ScaledAdapter], target: MergeTarget) -> (TempDir, PathBuf) {
    let folder = open(model);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged");
    let progress = &|_, _| ();
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(&folder, &schemes, adapters, options, &output, progress)
        .unwrap_or_else(|e| panic!("{e}"));
    (work, output)
}

#[test]
fn merged_models_have_the_adapted_loss_of_peft() {
    let dense = MergeTarget::Dense(FloatFormat::F32);
    let same = MergeTarget::SameScheme(&Nearest);
    // Rounding to 4 or 8 bits again moves the loss.
    for (name, target, tolerance) in [
        ("dense", dense, 1e-5),
        ("dense", same, 1e-5),
        ("nf4", dense, 1e-5),
        ("nf4", same, 0.2),
        ("int8", dense, 1e-5),
        ("int8", same, 0.02),
    ] {
        let case = case(name);
        let reference = reference(&case);
        let (_work, output) = merged(&case, &[adapter(&case.join("adapter"))], target);
        let found = loss(&load(&output, &[]), &rows(&reference["rows"]));
        let expected = reference["adapted_loss"].as_f64().unwrap();
        println!("{name}: {found} {expected}");
        assert!(
            (found - expected).abs() < tolerance,
            "{name}: {found} {expected}"
        );
    }
}

#[test]
fn merged_layers_are_those_of_peft_turned_over() {
    let case = case("dense");
    let adapters = [adapter(&case.join("adapter"))];
    let (_work, output) = merged(&case, &adapters, MergeTarget::SameScheme(&Nearest));
    let (ours, before) = (Checkpoint::open(&output), Checkpoint::open(&case));
    let (ours, before) = (ours.unwrap(), before.unwrap());
    let theirs = std::fs::read(case.join("merged.safetensors")).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&theirs).unwrap();
    let mut compared = 0;
    for (name, theirs) in theirs.iter() {
        let stored = ours.tensor(name).unwrap();
        let &[rows, cols] = theirs.shape() else {
            panic!("{name} is no matrix");
        };
        assert_eq!(stored.shape(), [cols, rows], "{name}");
        assert_eq!(
            stored.shape(),
            before.tensor(name).unwrap().shape(),
            "{name}"
        );
        let mut expected = vec![0.0; rows * cols];
        FloatFormat::F32.decode(theirs.data(), &mut expected);
        for (i, value) in stored.to_f32().unwrap().into_iter().enumerate() {
            let expected = expected[i % rows * cols + i / rows];
            assert!(
                (value - expected).abs() < 2e-6,
                "{name}: {value} {expected}"
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 4);
}

/// A dense layer has the layout that transformers' Conv1D has, whatever it was quantized as.
#[test]
fn dequantized_layers_are_stored_as_in_out() {
    for name in ["nf4", "int8"] {
        let (_work, output) = merged(&case(name), &[], MergeTarget::Dense(FloatFormat::F32));
        let dense = Checkpoint::open(&output).unwrap();
        let shape = |path: &str| {
            dense
                .tensor(&format!("transformer.h.1.{path}.weight"))
                .unwrap()
        };
        assert_eq!(shape("attn.c_attn").shape(), [64, 192]);
        assert_eq!(shape("mlp.c_fc").shape(), [64, 128]);
        assert_eq!(shape("mlp.c_proj").shape(), [128, 64]);
        let reference = reference(&case(name));
        let found = loss(&load(&output, &[]), &rows(&reference["rows"]));
        let expected = reference["loss"].as_f64().unwrap();
        assert!(
            (found - expected).abs() < 1e-5,
            "{name}: {found} {expected}"
        );
    }
}

/// As transformers does when it saves such a model again.
#[test]
fn a_checkpoint_without_the_prefix_is_written_with_it() {
    let model = qoft_fixtures::path("models/gpt2_bare");
    let (_work, output) = merged(&model, &[], MergeTarget::SameScheme(&Nearest));
    let written = Checkpoint::open(&output).unwrap();
    assert!(written.names().all(|name| name.starts_with("transformer.")));
    // Buffers of older versions are kept as they are, as other tensors are that nothing reads.
    let before = Checkpoint::open(&model).unwrap();
    let buffers = ["attn.bias", "attn.masked_bias"];
    let buffers = buffers.map(|name| format!("h.1.{name}"));
    for name in buffers {
        let kept = written.tensor(&format!("transformer.{name}")).unwrap();
        assert!(kept.is_same(&before.tensor(&name).unwrap()), "{name}");
    }
    let row = vec![vec![5, 9, 12, 40, 7]];
    let (before, after) = (
        loss(&load(&model, &[]), &row),
        loss(&load(&output, &[]), &row),
    );
    assert_eq!(before, after);
}

#[test]
fn exported_lora_says_how_the_weights_are_stored() {
    let case = case("dense");
    let folder = open(&case);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let (work, rank) = (tempfile::tempdir().unwrap(), NonZeroUsize::new(64).unwrap());
    let output = work.path().join("lora");
    let adapters = [adapter(&case.join("adapter"))];
    let progress = &|_, _| ();
    let report = export_lora(&folder, &schemes, &adapters, rank, &output, progress);
    // The full rank of these layers leaves nothing out.
    assert!(
        report
            .unwrap()
            .layers
            .iter()
            .all(|layer| layer.residual < 1e-5)
    );
    let config = std::fs::read_to_string(output.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["fan_in_fan_out"], true);
    let tensors = std::fs::read(output.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let name = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight";
    assert_eq!(tensors.tensor(name).unwrap().shape(), [96, 32]);
}

#[test]
fn the_default_targets_are_those_of_peft_and_fan_in_fan_out_changes_nothing() {
    let attached = |fan_in_fan_out| {
        let mut model = load(&case("dense"), &[]);
        let mut config = OftConfig::default();
        config.fan_in_fan_out = fan_in_fan_out;
        config.oft_block_size = 8;
        config.init_weights = false;
        let (head, device) = ("lm_head", Device::flex());
        peft::attach(
            &mut model,
            &config,
            ModelFacts::of_type("gpt2").with_head(head),
            "default",
            1,
            &device,
        )
        .unwrap();
        model
    };
    let model = attached(false);
    let adapted = model.layers().into_iter();
    let adapted = adapted.filter(|(_, layer)| !layer.adapters().slots().is_empty());
    let paths: Vec<String> = adapted.map(|(path, _)| path).collect();
    assert_eq!(
        paths,
        ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
    );
    let row = vec![vec![5, 9, 12, 40, 7]];
    assert_eq!(loss(&model, &row), loss(&attached(true), &row));
}

#[test]
fn rows_beyond_the_last_position_are_refused() {
    let model = load(&case("dense"), &[]);
    let dataset = |tokens: usize| Dataset::new([Example::new(vec![5; tokens], vec![5; tokens])]);
    let never = AtomicBool::new(false);
    let run = |tokens| {
        let device = Device::flex();
        evaluate(&model, &dataset(tokens), 1, &device, &never, &mut |_, _| ())
    };
    run(32).unwrap();
    match run(33).unwrap_err() {
        TrainError::RowTooLong { row, tokens, limit } => {
            assert_eq!((row.as_str(), tokens, limit), ("row 1", 33, 32));
        }
        other => panic!("{other}"),
    }
}
