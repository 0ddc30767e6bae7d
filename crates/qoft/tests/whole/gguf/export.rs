//! Models that are written as GGUF files.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use qoft::core::kernels::FloatFormat;
use qoft::core::{Containers, Dtype, NewTensor, Result, Schemes, StagedDir, WaitingFile};
use qoft::models::{CausalLm, ModelFolder};
use qoft::peft::{AdapterFolder, Families};
use qoft::train::tokenizer::Tokenizer;
use qoft::{
    MergeOptions, MergePlan, MergeReport, MergeTarget, NewContainer, ScaledAdapter, merge_staged,
};

use serde_json::{Value, json};

use super::merging::{merged_model, weights};
use super::{TEXT, load, open, open_at};

fn try_export(
    folder: &ModelFolder,
    adapters: &[ScaledAdapter],
    numbers: Option<&str>,
    staged: StagedDir,
) -> Result<MergeReport> {
    let containers = Containers::linked()?;
    let mut all = containers.containers();
    let gguf = all.find(|container| container.name() == "gguf").unwrap();
    let form = NewContainer::new(gguf).numbers(numbers);
    let options = MergeOptions::new(MergeTarget::Dense(FloatFormat::F32)).container(form);
    let schemes = Schemes::linked(folder.checkpoint())?;
    let plan = MergePlan::new(folder, &schemes, adapters, options)?;
    merge_staged(plan, staged, &|_, _| ())?.commit()
}

/// The file that a model is written to.
fn exported(folder: &ModelFolder, numbers: &str, work: &Path) -> PathBuf {
    let output = work.join(format!("{numbers}.gguf"));
    let staged = StagedDir::of_file(&output).unwrap();
    try_export(folder, &[], Some(numbers), staged).unwrap_or_else(|e| panic!("{e}"));
    output
}

fn fixture(name: &str) -> ModelFolder {
    open_at(qoft_fixtures::path(&format!("models/{name}")))
}

fn logits(model: &CausalLm) -> Vec<f32> {
    let ids = [[
        7, 11, 30, 5, 42, 9, 1, 13, 22, 60, 33, 2, 8, 17, 51, 50, 49, 48, 3, 4,
    ]];
    let ids = Tensor::<2, Int>::from_data(ids, &Device::flex());
    let logits = model.last_logits(ids, None).into_data();
    logits.try_to_vec::<f32>().unwrap()
}

fn assert_near(found: &[f32], expected: &[f32], within: f32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off < within, "{name}: {found} {expected}");
    }
}

#[test]
fn a_model_in_single_precision_is_the_same_model() {
    for name in [
        "llama",
        "llama_bias",
        "llama_head_dim",
        "llama_rope_linear",
        "llama_rope_llama3",
        "llama_rope_yarn",
        "llama_rope_yarn_options",
        "llama_sharded",
        "qwen2",
        "qwen3",
        "phi3",
        "phi3_partial",
        "phi3_partial_longrope",
    ] {
        let work = tempfile::tempdir().unwrap();
        let folder = fixture(name);
        let file = exported(&folder, "f32", work.path());
        let found = open_at(&file);
        let same = [
            "hidden_size",
            "head_dim",
            "num_key_value_heads",
            "rms_norm_eps",
        ];
        for key in same {
            let (found, expected) = (
                &found.checkpoint().config()[key],
                &folder.checkpoint().config()[key],
            );
            assert!(
                expected.is_null() || found == expected,
                "{name}: {key}: {found} {expected}"
            );
        }
        assert_near(&logits(&load(&found)), &logits(&load(&folder)), 2e-5, name);
    }
}

/// The model of a fixture with other values in its configuration.
fn changed(name: &str, changes: &[(&str, Value)], work: &Path) -> ModelFolder {
    let folder = work.join(name);
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = qoft_fixtures::path(&format!("models/{name}/{file}"));
        std::fs::copy(from, folder.join(file)).unwrap();
    }
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
    open_at(folder)
}

#[test]
fn mixtures_have_their_experts_in_one_tensor() {
    for name in ["mixtral", "mixtral_fused"] {
        let work = tempfile::tempdir().unwrap();
        // Files do not say a window.
        let folder = changed(name, &[("sliding_window", json!(null))], work.path());
        let found = open_at(exported(&folder, "f32", work.path()));
        let config = found.checkpoint().config();
        assert_eq!(config["model_type"], "mixtral");
        assert_eq!(
            config["num_local_experts"],
            folder.checkpoint().config()["num_local_experts"]
        );
        assert_near(&logits(&load(&found)), &logits(&load(&folder)), 2e-5, name);
        // Blocks are written again as they were read, byte for byte.
        let file = exported(&folder, "q8_0", work.path());
        let again = work.path().join("again.gguf");
        merged_model(&open_at(&file), &[], StagedDir::of_file(&again).unwrap());
        let [before, after] = [&file, &again].map(|path| std::fs::read(path).unwrap());
        let length = before.len().min(after.len());
        assert!(before.len().abs_diff(after.len()) < 32);
        assert!(before[..length] == after[..length], "{name}");
    }
}

#[test]
fn mixtures_that_files_cannot_say_are_refused() {
    for (name, key, value) in [
        ("qwen3_moe", "norm_topk_prob", json!(false)),
        ("qwen2_moe", "norm_topk_prob", json!(true)),
        ("qwen3_moe", "decoder_sparse_step", json!(2)),
        ("qwen3_moe", "mlp_only_layers", json!([1])),
        ("olmoe", "clip_qkv", json!(3.5)),
    ] {
        let work = tempfile::tempdir().unwrap();
        let folder = changed(name, &[(key, value)], work.path());
        let staged = StagedDir::of_file(&work.path().join("m.gguf")).unwrap();
        let error = try_export(&folder, &[], Some("f32"), staged).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(name) || text.contains(key) || text.contains("experts"),
            "{text}"
        );
    }
}

/// Norms, windows and positions of files come back as they were.
#[test]
fn a_file_is_written_as_a_new_one() {
    for name in ["mistral", "smollm3", "gemma3"] {
        let work = tempfile::tempdir().unwrap();
        let folder = open(name);
        let found = open_at(exported(&folder, "f32", work.path()));
        let [before, after] = [&folder, &found].map(|f| f.checkpoint().config());
        for key in before.as_object().unwrap().keys() {
            assert_eq!(before[key], after[key], "{name}: {key}");
        }
        assert_near(&logits(&load(&found)), &logits(&load(&folder)), 2e-5, name);
    }
}

#[test]
fn every_type_of_numbers_is_read_again() {
    let work = tempfile::tempdir().unwrap();
    let folder = open("llama");
    let expected = weights(&folder);
    for numbers in [
        "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q2_k_s", "q3_k_s",
        "q3_k_m", "q3_k_l", "q3_k", "q4_k_s", "q4_k_m", "q4_k", "q5_k_s", "q5_k_m", "q5_k", "q6_k",
        "iq4_nl", "iq4_xs", "mxfp4", "auto",
    ] {
        let found = open_at(exported(&folder, numbers, work.path()));
        let most = match numbers {
            "f16" | "bf16" | "auto" => 0.005,
            "q8_0" | "q6_k" => 0.02,
            "q2_k" | "q2_k_s" => 0.4,
            "q3_k_s" | "q3_k_m" | "q3_k_l" | "q3_k" => 0.2,
            _ => 0.12,
        };
        let found = weights(&found);
        assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let square = |v: f32| f64::from(v).powi(2);
            let pairs = found.values.iter().zip(&expected.values);
            let off: f64 = pairs
                .map(|(found, expected)| square(found - expected))
                .sum();
            let size: f64 = expected.values.iter().copied().map(square).sum();
            let off = (off / size).sqrt();
            assert!(off < most, "{numbers}: {name}: {off}");
        }
    }
}

#[test]
fn tokenizer_and_template_come_along() {
    for name in ["llama", "qwen2", "qwen3"] {
        let work = tempfile::tempdir().unwrap();
        let folder = open(name);
        let found = open_at(exported(&folder, "q8_0", work.path()));
        let tokenizers = [&folder, &found].map(|folder| {
            let tokenizer = Tokenizer::from_dir(folder.checkpoint().dir()).unwrap();
            let text = tokenizer.encode(TEXT, true).unwrap();
            let template = folder.checkpoint().dir().join("chat_template.jinja");
            (text, std::fs::read_to_string(template).ok())
        });
        assert_eq!(tokenizers[0], tokenizers[1], "{name}");
        for key in ["bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"] {
            let [before, after] = [&folder, &found].map(|f| &f.checkpoint().config()[key]);
            assert_eq!(before, after, "{name}: {key}");
        }
    }
}

#[test]
fn a_quantized_model_with_an_adapter_is_written_as_it_computes() {
    let work = tempfile::tempdir().unwrap();
    let folder = fixture("llama_nf4");
    let adapter = qoft_fixtures::path("adapters/all_linear");
    let adapter = AdapterFolder::open(&adapter, &Families::linked().unwrap()).unwrap();
    let adapters = [ScaledAdapter::new(adapter, 1.0)];
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let dense = work.path().join("dense");
    let target = MergeTarget::Dense(FloatFormat::F32);
    qoft::merge(&folder, &schemes, &adapters, target, &dense, &|_, _| ()).unwrap();
    let output = work.path().join("out");
    let staged = StagedDir::new(&output).unwrap();
    let report = try_export(&folder, &adapters, Some("f32"), staged).unwrap();
    assert!(report.layers.len() > 10);
    assert!(output.join("llama_nf4-F32.gguf").is_file());
    let expected = logits(&load(&open_at(&dense)));
    assert_near(&logits(&load(&open_at(&output))), &expected, 2e-5, "nf4");
}

#[test]
fn what_files_cannot_say_is_named() {
    for (name, reason) in [
        ("gpt2", "`gpt2` is not written to GGUF files"),
        ("granite", "`granite` is not written to GGUF files"),
        ("olmo2", "`olmo2` is not written to GGUF files"),
        (
            "gemma3_text",
            "in files every sixth layer sees all of a text",
        ),
        (
            "llama_rope_dynamic",
            "`dynamic` is not written to GGUF files",
        ),
        (
            "smollm3",
            "llama.cpp leaves every fourth layer without positions",
        ),
    ] {
        let work = tempfile::tempdir().unwrap();
        let staged = StagedDir::new(&work.path().join("out")).unwrap();
        let error = try_export(&fixture(name), &[], None, staged).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0, "{name}");
    }
    let work = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&work.path().join("out")).unwrap();
    let error = try_export(&fixture("llama"), &[], Some("q9_k"), staged).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no type of numbers `q9_k`, only auto, f32"),
        "{error}"
    );
}

/// A program that reads the file would use a bias that it finds, and refuse what it does not know.
#[test]
fn what_the_model_does_not_read_is_left_out() {
    let (work, folder) = (tempfile::tempdir().unwrap(), fixture("llama"));
    let whole = exported(&folder, "f32", work.path());
    let expected = std::fs::read(&whole).unwrap();
    std::fs::remove_file(&whole).unwrap();
    let mut checkpoint = folder.checkpoint().clone();
    let mut file = WaitingFile::new(work.path()).unwrap();
    let names = [
        ("v_head.summary", "bias"),
        ("model.layers.7.input_layernorm", "weight"),
        ("model.layers.0.self_attn.o_proj", "bias"),
        ("model.layers.0.self_attn.rotary_emb", "inv_freq"),
    ];
    let more = names.map(|(path, name)| {
        let bytes = FloatFormat::F32.to_bytes(&[0.5; 32]);
        NewTensor::new(path, name, Dtype::F32, &[32], bytes)
    });
    checkpoint.insert(&more, &mut file).unwrap();
    let found = exported(&folder.with_checkpoint(checkpoint), "f32", work.path());
    assert!(std::fs::read(found).unwrap() == expected);
}
