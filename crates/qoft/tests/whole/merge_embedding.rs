//! Merging adapters of embedding tables, beside output heads that are tied to them or not.

use std::path::Path;

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Error, Nearest, Result, Schemes};
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, CommonConfig, Families, ModelFacts};
use qoft::{MergeOptions, MergeReport, MergeTarget, ScaledAdapter, dequantize, merge};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

const TABLE: &str = "model.embed_tokens.weight";

fn merged(
    model: &Path,
    adapters: &[&Path],
    target: MergeTarget,
    output: &Path,
) -> Result<MergeReport> {
    let adapters: Vec<ScaledAdapter> = adapters
        .iter()
        .map(|folder| {
            ScaledAdapter::new(
                AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
                1.0,
            )
        })
        .collect();
    let folder = open(model);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let progress = &|_, _| ();
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(&folder, &schemes, &adapters, options, output, progress)
}

fn adapted_loss(model: &Path, adapters: &[&Path], rows: &[Vec<i32>]) -> f64 {
    let mut model = load(model, &[]);
    for (number, folder) in adapters.iter().enumerate() {
        let (name, device) = (number.to_string(), Device::flex());
        peft::load(
            &mut model,
            folder,
            &Families::linked().unwrap(),
            ModelFacts::of_type("llama").with_head("lm_head"),
            &name,
            &device,
        )
        .unwrap_or_else(|e| panic!("{e}"));
    }
    loss(&model, rows)
}

fn config(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn expected() -> Value {
    let path = qoft_fixtures::path("adapters/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A tied model becomes one with a head of its own, which is the table as it was.
#[test]
fn a_tied_head_stays_as_it_was() {
    let model = qoft_fixtures::path("models/llama_nf4");
    let adapter = qoft_fixtures::path("adapters/embedding");
    let reference = expected();
    let rows = rows(&reference["rows"]);
    let adapted = adapted_loss(&model, &[&adapter], &rows);
    let peft = reference["cases"]["embedding"]["loss"].as_f64().unwrap();
    assert!((adapted - peft).abs() < 2e-5, "{adapted} {peft}");
    let before = Checkpoint::open(&model).unwrap();
    let before = before.tensor(TABLE).unwrap().to_f32().unwrap();

    let work = tempfile::tempdir().unwrap();
    for (name, target, tolerance) in [
        ("dense", MergeTarget::Dense(FloatFormat::F32), 1e-5),
        // The projections are rounded to 4 bits again.
        ("nf4", MergeTarget::SameScheme(&Nearest), 0.05),
    ] {
        let output = work.path().join(name);
        let report = merged(&model, &[&adapter], target, &output).unwrap();
        let table = report
            .layers
            .iter()
            .find(|l| l.name == "model.embed_tokens");
        assert_eq!(table.unwrap().relative_error, 0.0);
        let written = Checkpoint::open(&output).unwrap();
        assert_eq!(config(&output)["tie_word_embeddings"], false);
        let head = written.tensor("lm_head.weight").unwrap().to_f32().unwrap();
        assert_eq!(head, before);
        let rotated = written.tensor(TABLE).unwrap().to_f32().unwrap();
        assert!(
            rotated
                .iter()
                .zip(&before)
                .any(|(a, b)| (a - b).abs() > 1e-2)
        );
        let found = loss(&load(&output, &[]), &rows);
        assert!(
            (found - adapted).abs() < tolerance,
            "{name}: {found} {adapted}"
        );
    }
}

/// Two adapters on a dense model with a head of its own.
#[test]
fn an_untied_head_is_copied() {
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    untied_model(&model);
    let adapter = qoft_fixtures::path("adapters/embedding");
    let second = work.path().join("second");
    random_adapter(&model, &["embed_tokens", "v_proj"], &second);
    let rows = rows(&expected()["rows"]);
    let expected = adapted_loss(&model, &[&adapter, &second], &rows);
    let swapped = adapted_loss(&model, &[&second, &adapter], &rows);
    assert!((expected - swapped).abs() > 1e-3, "the order must matter");

    let output = work.path().join("merged");
    let target = MergeTarget::SameScheme(&Nearest);
    merged(&model, &[&adapter, &second], target, &output).unwrap();
    let (written, before) = (Checkpoint::open(&output), Checkpoint::open(&model));
    let head = |checkpoint: &Checkpoint| checkpoint.tensor("lm_head.weight").unwrap();
    assert_eq!(
        head(&written.unwrap()).bytes(),
        head(&before.unwrap()).bytes()
    );
    let found = loss(&load(&output, &[]), &rows);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

/// A head that is stored beside a table to which it is tied is not the model's: the table is.
#[test]
fn a_stored_head_that_is_tied_is_replaced_by_the_table() {
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    untied_model(&model);
    let mut tied = config(&model);
    tied["tie_word_embeddings"] = json!(true);
    std::fs::write(model.join("config.json"), tied.to_string()).unwrap();
    let adapter = qoft_fixtures::path("adapters/embedding");
    let rows = rows(&expected()["rows"]);
    let expected = adapted_loss(&model, &[&adapter], &rows);
    let output = work.path().join("merged");
    let target = MergeTarget::Dense(FloatFormat::F32);
    merged(&model, &[&adapter], target, &output).unwrap();
    let found = loss(&load(&output, &[]), &rows);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

/// GPT-2 has two tables, and only that of the tokens is the head.
#[test]
fn tables_of_positions_are_merged_too() {
    let model = qoft_fixtures::path("models/gpt2");
    let work = tempfile::tempdir().unwrap();
    let rows = vec![vec![5, 9, 12, 40, 7, 33, 21]];
    for (targets, tied) in [(["wte", "wpe"], false), (["wpe", "c_fc"], true)] {
        let adapter = work.path().join(targets[1]);
        random_adapter(&model, &targets, &adapter);
        let expected = adapted_loss(&model, &[&adapter], &rows);
        assert!((expected - loss(&load(&model, &[]), &rows)).abs() > 1e-3);
        let output = work.path().join(format!("merged {}", targets[1]));
        let target = MergeTarget::SameScheme(&Nearest);
        merged(&model, &[&adapter], target, &output).unwrap();
        assert_eq!(config(&output)["tie_word_embeddings"], tied);
        let found = loss(&load(&output, &[]), &rows);
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn an_adapter_of_another_table_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    untied_model(&model);
    let mut file = std::fs::read(model.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let names: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let start = names[TABLE]["data_offsets"][0].as_u64().unwrap() as usize;
    file[8 + header + start..][..4].copy_from_slice(&7.5f32.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), file).unwrap();
    let adapter = qoft_fixtures::path("adapters/embedding");
    let output = work.path().join("merged");
    let target = MergeTarget::SameScheme(&Nearest);
    let error = merged(&model, &[&adapter], target, &output).unwrap_err();
    assert!(matches!(error, Error::Adapter { .. }), "{error}");
    assert!(
        error.to_string().contains("embed_tokens.base_layer.weight"),
        "{error}"
    );
    assert!(!output.exists());
}

/// The quantized model of the adapter, dense, with a head of its own: the table's rows the other
/// way round.
fn untied_model(folder: &Path) {
    let tied = open(&qoft_fixtures::path("models/llama_nf4"));
    let schemes = Schemes::linked(tied.checkpoint()).unwrap();
    dequantize(&tied, &schemes, folder, FloatFormat::F32, &|_, _| ()).unwrap();
    let file = folder.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let table = tensors.tensor(TABLE).unwrap();
    let row_bytes = table.shape()[1] * 4;
    let head: Vec<u8> = table
        .data()
        .chunks(row_bytes)
        .rev()
        .flatten()
        .copied()
        .collect();
    let head = TensorView::new(table.dtype(), table.shape().to_vec(), &head).unwrap();
    let mut all = tensors.tensors();
    all.push(("lm_head.weight".to_owned(), head));
    let written = safetensors::serialize(all, None).unwrap();
    std::fs::write(&file, written).unwrap();
    let mut config = config(folder);
    config["tie_word_embeddings"] = json!(false);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn random_adapter(model: &Path, targets: &[&str], folder: &Path) {
    let mut model = load(model, &[]);
    let targets: Vec<String> = targets.iter().map(|&target| target.to_owned()).collect();
    let mut config = OftConfig::default();
    config.common = CommonConfig::targeting(targets);
    config.oft_block_size = 8;
    config.init_weights = false;
    let (head, device) = ("lm_head", Device::flex());
    peft::attach(
        &mut model,
        &config,
        ModelFacts::of_type("llama").with_head(head),
        "default",
        1,
        &device,
    )
    .unwrap();
    std::fs::create_dir(folder).unwrap();
    peft::save(&model, &config, "default", folder).unwrap();
}
