//! Experts that files only have together: packed and dense, merged, quantized and trained.

use std::path::{Path, PathBuf};

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{BackendOptions, Checkpoint, Nearest, Registry, Schemes, StagedDir, Walk};
use qoft::models::{CausalLm, ModelFolder};
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, Families};
use qoft::train::model_facts;
use qoft::{MergeOptions, MergeTarget, QuantizeOptions, ScaledAdapter, merge};
use serde_json::Value;
use tempfile::TempDir;

const DENSE: MergeTarget = MergeTarget::Dense(FloatFormat::F32);

fn model(case: &str) -> PathBuf {
    qoft_fixtures::path(&format!("models/{case}"))
}

fn expected(case: &str) -> (Vec<Vec<i32>>, f64) {
    let text = std::fs::read_to_string(model(case).join("expected.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    (rows(&json["rows"]), json["loss"].as_f64().unwrap())
}

fn near(found: f64, expected: f64, share: f64) {
    assert!(
        (found - expected).abs() <= share * expected,
        "{found} {expected}"
    );
}

fn names(folder: &Path) -> Vec<String> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.names().map(str::to_owned).collect()
}

/// Names of the dense tensors of a folder with packed experts.
fn dense_names(folder: &Path) -> Vec<String> {
    let names = names(folder).into_iter();
    let names = names.filter(|name| !name.ends_with("_scales"));
    let dense = |name: String| match name.strip_suffix("_blocks") {
        Some(name) => name.to_owned(),
        None => name,
    };
    let mut names: Vec<String> = names.map(dense).collect();
    names.sort();
    names
}

fn dense_copy(folder: &ModelFolder) -> (TempDir, PathBuf) {
    let (schemes, work) = (
        Schemes::linked(folder.checkpoint()).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let output = work.path().join("dense");
    qoft::dequantize(folder, &schemes, &output, FloatFormat::F32, &|_, _| ()).unwrap();
    (work, output)
}

/// A folder of a new adapter, away from the identity, and the model with it.
fn adapted(folder: &Path, targets: &[&str]) -> (CausalLm, TempDir) {
    let mut model = load(folder, &[]);
    let mut config = OftConfig::default();
    config.oft_block_size = 8;
    config.init_weights = false;
    let targets: Vec<String> = targets.iter().map(|&target| target.to_owned()).collect();
    config.common.target_modules = Some(peft::OneOrMany::Many(targets));
    let plain = model.clone();
    let (facts, device) = (model_facts(plain.spec()), Device::flex());
    peft::attach(&mut model, &config, facts, "default", 1, &device)
        .unwrap_or_else(|e| panic!("{e}"));
    let adapter = tempfile::tempdir().unwrap();
    peft::save(&model, &config, "default", adapter.path()).unwrap();
    (model, adapter)
}

fn merged(folder: &Path, adapter: &Path, target: MergeTarget) -> (TempDir, PathBuf) {
    let (folder, work) = (open(folder), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let output = work.path().join("merged");
    let adapter = AdapterFolder::open(adapter, &Families::linked().unwrap()).unwrap();
    let adapters = [ScaledAdapter::new(adapter, 1.0)];
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(&folder, &schemes, &adapters, options, &output, &|_, _| ())
        .unwrap_or_else(|e| panic!("{e}"));
    (work, output)
}

/// The adapter as a LoRA of PEFT.
fn exported(folder: &Path, adapter: &Path) -> qoft::core::Result<qoft::LoraReport> {
    let (folder, work) = (open(folder), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let adapter = AdapterFolder::open(adapter, &Families::linked().unwrap()).unwrap();
    let (adapters, rank) = ([ScaledAdapter::new(adapter, 1.0)], 4.try_into().unwrap());
    let output = work.path().join("lora");
    qoft::export_lora(&folder, &schemes, &adapters, rank, &output, &|_, _| ())
}

#[test]
fn packed_experts_compute_what_transformers_computes() {
    let (rows, expected) = expected("gpt_oss_mxfp4");
    near(
        loss(&load(&model("gpt_oss_mxfp4"), &[]), &rows),
        expected,
        1e-5,
    );
    let (_work, dense) = dense_copy(&open(&model("gpt_oss_mxfp4")));
    assert_eq!(names(&dense), dense_names(&model("gpt_oss_mxfp4")));
    near(loss(&load(&dense, &[]), &rows), expected, 1e-5);
}

#[test]
fn merged_experts_are_together() {
    let experts = ["q_proj", "experts.*.gate_up_proj", "experts.*.down_proj"];
    for (case, share) in [("gpt_oss", 1e-5), ("gpt_oss_mxfp4", 0.1)] {
        let (rows, without) = expected(case);
        for targets in [&experts[..1], &experts] {
            let (with, adapter) = adapted(&model(case), targets);
            let adapters = with.layers().into_iter();
            let adapters = adapters.filter(|(_, layer)| !layer.adapters().slots().is_empty());
            let layers = with.spec().config().num_hidden_layers;
            let count = if case == "gpt_oss" { 5 } else { 4 };
            let experts = if targets.len() > 1 { 2 * count } else { 0 };
            assert_eq!(adapters.count(), layers * (1 + experts));
            let found = loss(&with, &rows);
            assert!((found - without).abs() > 1e-3, "{found} {without}");
            let lora = exported(&model(case), adapter.path());
            assert_eq!(lora.is_ok(), targets.len() == 1, "{lora:?}");
            let (_work, same) = merged(
                &model(case),
                adapter.path(),
                MergeTarget::SameScheme(&Nearest),
            );
            assert_eq!(names(&same), names(&model(case)));
            let share = if targets.len() > 1 { share } else { 1e-5 };
            near(loss(&load(&same, &[]), &rows), found, share);
            let (_work, dense) = merged(&model(case), adapter.path(), DENSE);
            assert_eq!(names(&dense), dense_names(&model(case)));
            near(loss(&load(&dense, &[]), &rows), found, 1e-5);
        }
    }
}

#[test]
fn experts_are_quantized_together_where_the_scheme_can() {
    let (rows, expected) = expected("gpt_oss_mxfp4");
    let (_work, dense) = dense_copy(&open(&model("gpt_oss_mxfp4")));
    let (dense, registry) = (open(&dense), Registry::linked().unwrap());
    // The first of them knows what its library reads.
    let skips = [r".*\.self_attn\.", "lm_head"].map(str::to_owned);
    for (scheme, together, skips) in [
        ("mxfp4", true, None),
        ("mxfp4", true, Some(vec!["lm_head".to_owned()])),
        (
            "bnb-4bit,bnb_4bit_quant_type=nf4",
            false,
            Some(skips.to_vec()),
        ),
    ] {
        let quantization = registry.parse_quantization(scheme).unwrap();
        let work = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(&work.path().join("quantized")).unwrap();
        let mut options = QuantizeOptions::default();
        options.skips = skips;
        let (quiet, nearest) = (&|_, _| (), &Nearest);
        let staged = qoft::quantize_staged(
            &dense,
            &registry,
            &quantization,
            &options,
            nearest,
            staged,
            quiet,
        );
        staged.unwrap().commit().unwrap();
        let output = work.path().join("quantized");
        let same = names(&output) == names(&model("gpt_oss_mxfp4"));
        assert_eq!(same, together, "{scheme}");
        let config = Checkpoint::open(&output).unwrap();
        let config = &config.config()["quantization_config"];
        if together {
            let listed = config["modules_to_not_convert"].as_array().unwrap();
            for path in [
                "model.layers.0.self_attn.q_proj",
                "model.layers.1.mlp.router",
                "lm_head",
            ] {
                assert!(listed.contains(&path.into()), "{path} {config}");
            }
        }
        let share = if together { 1e-5 } else { 0.1 };
        near(loss(&load(&output, &[]), &rows), expected, share);
    }
}

#[test]
fn experts_of_a_dense_model_are_quantized_on_load() {
    let (rows, expected) = expected("gpt_oss");
    let (folder, registry) = (open(&model("gpt_oss")), Registry::linked().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let quantization = registry.parse_quantization("bnb-8bit").unwrap();
    let (options, progress) = (QuantizeOptions::default(), &mut |_, _| ());
    let quantized = qoft::quantize(
        &folder,
        &schemes,
        &quantization,
        &options,
        &Nearest,
        progress,
    )
    .unwrap();
    let schemes = registry.open(quantized.checkpoint(), &BackendOptions::default());
    let loaded = CausalLm::load(
        &quantized,
        &schemes.unwrap(),
        &Device::flex(),
        &mut |_, _| (),
    )
    .unwrap();
    near(loss(&loaded, &rows), expected, 0.02);
}
