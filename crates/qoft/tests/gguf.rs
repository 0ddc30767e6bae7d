//! Models in GGUF files, against transformers.
#![cfg(feature = "gguf")]

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Containers, Matrix, Nearest, Purpose, Result, Schemes, StagedDir};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::train::tokenizer::Tokenizer;
use qoft::{MergePlan, MergeReport, MergeTarget, ScaledAdapter, merge_staged};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const TEXT: &str = "The quick brown fox's 12345 jumps\n\n  over <|im_end|> naïve 漢字 don't!";

fn open_file(path: impl AsRef<Path>) -> Result<Checkpoint> {
    Containers::linked()?.open(path)
}

fn open_at(path: impl AsRef<Path>) -> ModelFolder {
    ModelFolder::new(open_file(path).unwrap(), &Architectures::linked().unwrap())
}

fn open(name: &str) -> ModelFolder {
    open_at(qoft_fixtures::path(&format!("gguf/{name}.gguf")))
}

fn load(folder: &ModelFolder) -> CausalLm {
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    CausalLm::load(folder, &schemes, &Device::flex(), &mut |_, _| ()).unwrap()
}

fn numbers(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<i64>) {
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks::<8>().0.iter();
    let values = values.map(|value| i64::from_le_bytes(*value)).collect();
    (tensor.shape().to_vec(), values)
}

#[test]
fn logits_are_those_of_transformers() {
    let bytes = std::fs::read(qoft_fixtures::path("gguf/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["llama", "qwen2", "qwen3", "llama-00001-of-00002"] {
        let model = load(&open(name));
        let of = name.split('-').next().unwrap();
        let (shape, ids) = numbers(&file, &format!("{of}.input_ids"));
        let logits = file.tensor(&format!("{of}.logits")).unwrap();
        let vocab = logits.shape()[2];
        let logits = logits.data().as_chunks::<4>().0.iter();
        let logits: Vec<f32> = logits.map(|v| f32::from_le_bytes(*v)).collect();
        for length in [1, 9, shape[1]] {
            let rows = ids.chunks(shape[1]).flat_map(|row| row[..length].to_vec());
            let data = TensorData::new(rows.collect::<Vec<i64>>(), [shape[0], length]);
            let found = model.last_logits(Tensor::<2, Int>::from_data(data, &Device::flex()), None);
            let found = found.into_data().try_to_vec::<f32>().unwrap();
            for (row, found) in found.chunks(vocab).enumerate() {
                let expected = &logits[(row * shape[1] + length - 1) * vocab..][..vocab];
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{name}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn text_becomes_the_tokens_of_transformers() {
    let bytes = std::fs::read(qoft_fixtures::path("gguf/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["llama", "qwen2", "qwen3"] {
        let path = qoft_fixtures::path(&format!("gguf/{name}.gguf"));
        let checkpoint = open_file(path).unwrap();
        let tokenizer = Tokenizer::from_dir(checkpoint.dir()).unwrap();
        let found = tokenizer.encode(TEXT, false).unwrap();
        let (_, expected) = numbers(&file, &format!("{name}.text_ids"));
        assert_eq!(
            found.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(),
            expected,
            "{name}"
        );
        assert_eq!(tokenizer.chat_template().is_ok(), name != "llama");
    }
}

#[test]
fn a_dense_folder_has_the_same_logits() {
    let work = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3"] {
        let (folder, output) = (open(name), work.path().join(name));
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        let report =
            qoft::dequantize(&folder, &schemes, &output, FloatFormat::F32, &|_, _| ()).unwrap();
        assert!(report.layers > 10, "{report:?}");
        let dense = ModelFolder::open(&output, &Architectures::linked().unwrap()).unwrap();
        assert!(
            dense
                .checkpoint()
                .names()
                .all(|name| !name.contains("weight."))
        );
        assert!(output.join("tokenizer.json").is_file());
        let ids = Tensor::<2, Int>::from_data([[7, 11, 300, 5]], &Device::flex());
        let logits = |model: CausalLm| {
            let logits = model.last_logits(ids.clone(), None).into_data();
            logits.try_to_vec::<f32>().unwrap()
        };
        let (packed, dense) = (logits(load(&folder)), logits(load(&dense)));
        for (packed, dense) in packed.iter().zip(&dense) {
            assert!((packed - dense).abs() < 1e-5, "{name}: {packed} {dense}");
        }
    }
}

#[test]
fn a_folder_with_one_model_is_that_model_and_one_with_several_asks_which() {
    let work = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let to = work.path().join(format!("{name}.gguf"));
        std::fs::copy(qoft_fixtures::path(&format!("gguf/{name}.gguf")), to).unwrap();
    };
    put("llama-00001-of-00002");
    put("llama-00002-of-00002");
    let checkpoint = open_file(work.path()).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "llama");
    assert_eq!(checkpoint.path(), work.path());
    put("qwen2");
    let error = open_file(work.path()).unwrap_err().to_string();
    assert!(
        error.contains("llama-00001-of-00002.gguf, qwen2.gguf"),
        "{error}"
    );
}

/// An adapter for all layers in blocks, with parameters of this size.
fn adapter(model: &ModelFolder, size: f32, folder: &Path) -> ScaledAdapter {
    let spec = model.spec().unwrap();
    let schemes = Schemes::linked(model.checkpoint()).unwrap();
    let (mut names, mut seed) = (Vec::new(), 1u32);
    for module in model.checkpoint().modules() {
        let Some(layer) = spec.layer(module).filter(|_| module.ends_with("_proj")) else {
            continue;
        };
        let source = layer.source(model.checkpoint());
        let [_, columns] = schemes.find(source).unwrap().parse().unwrap().shape();
        let values = (0..columns / 32 * 496).flat_map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (((seed >> 8) as f32 / 8_388_608.0 - 1.0) * size).to_le_bytes()
        });
        let values: Vec<u8> = values.collect();
        let name = format!("base_model.model.{module}.oft_R.weight");
        names.push((name, [columns / 32, 496], values));
    }
    let tensors = names.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap();
        (name.clone(), view)
    });
    std::fs::create_dir_all(folder).unwrap();
    let file = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), file).unwrap();
    let config = serde_json::json!({
        "peft_type": "OFT",
        "task_type": "CAUSAL_LM",
        "r": 0,
        "oft_block_size": 32,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let folder = AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap();
    ScaledAdapter::new(folder, 1.0)
}

fn merged(name: &str, adapters: &[ScaledAdapter], staged: StagedDir) -> MergeReport {
    let folder = open(name);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let target = MergeTarget::SameScheme(&Nearest);
    let plan = MergePlan::new(&folder, &schemes, adapters, target).unwrap();
    merge_staged(plan, staged, &|_, _| ())
        .unwrap_or_else(|e| panic!("{name}: {e}"))
        .commit()
        .unwrap()
}

#[test]
fn a_merge_of_nothing_is_the_same_file() {
    let work = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3", "llama-00001-of-00002"] {
        let output = work.path().join(name);
        let report = merged(name, &[], StagedDir::new(&output).unwrap());
        let files: Vec<_> = std::fs::read_dir(&output).unwrap().collect();
        assert_eq!(files.len(), report.shards, "{name}");
        for file in files {
            let file = file.unwrap();
            let source = qoft_fixtures::path("gguf").join(file.file_name());
            let [found, expected] =
                [&file.path(), &source].map(|path| std::fs::read(path).unwrap());
            // Up to the bytes that fill up the end.
            let length = found.len().min(expected.len());
            assert!(found.len().abs_diff(expected.len()) < 32);
            assert!(found[..length] == expected[..length], "{name}");
        }
    }
}

/// The weight of each layer in blocks, with the name of its tensor.
fn weights(model: &ModelFolder) -> Vec<(String, Matrix)> {
    let schemes = Schemes::linked(model.checkpoint()).unwrap();
    let spec = model.spec().unwrap();
    let modules = model.checkpoint().modules().into_iter();
    let layers = modules.filter_map(|module| spec.layer(module));
    let weights = layers.filter_map(|layer| {
        let layer = schemes.claim(layer.source(model.checkpoint()))?;
        let weight = layer.load(Purpose::Forward).unwrap().weight;
        let name = model
            .checkpoint()
            .under(layer.path())
            .find(|n| n.contains("weight"))?;
        Some((name.to_owned(), Matrix::decode(&*weight)))
    });
    weights.collect()
}

#[test]
fn a_merge_of_rotations_by_nothing_keeps_what_the_types_can_say_again() {
    let work = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3"] {
        let folder = open(name);
        let adapter = adapter(&folder, 0.0, &work.path().join(format!("{name}-adapter")));
        let output = work.path().join(name);
        let report = merged(name, &[adapter], StagedDir::new(&output).unwrap());
        assert_eq!(report.layers.len(), 14);
        let found = open_at(&output);
        let pairs = weights(&folder).into_iter().zip(weights(&found));
        for ((before, a), (after, b)) in pairs {
            assert_eq!(before, after);
            let is = |types: &[&str]| types.iter().any(|kind| after.ends_with(kind));
            if is(&["weight", "Q4_0", "Q5_0", "Q8_0"]) {
                let tensors = [folder.checkpoint(), found.checkpoint()];
                let [a, b] = tensors.map(|c| c.tensor(&after).unwrap().bytes().to_vec());
                assert!(a == b, "{name}: {after}");
                continue;
            }
            let square = |v: f32| f64::from(v).powi(2);
            let pairs = a.values.iter().zip(&b.values);
            let off: f64 = pairs.map(|(a, b)| square(a - b)).sum();
            let all: f64 = a.values.iter().copied().map(square).sum();
            let off = (off / all).sqrt();
            assert!(
                off < if is(&["Q2_K"]) { 0.3 } else { 0.1 },
                "{name}: {after}: {off}"
            );
        }
    }
}

#[test]
fn a_merged_file_computes_what_the_adapted_model_does() {
    let work = tempfile::tempdir().unwrap();
    let ids = Tensor::<2, Int>::from_data([[7, 11, 300, 5, 42]], &Device::flex());
    let logits = |model: &CausalLm| {
        let logits = model.last_logits(ids.clone(), None).into_data();
        logits.try_to_vec::<f32>().unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| {
        let square = |v: f32| f64::from(v).powi(2);
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| square(a - b)).sum::<f64>().sqrt()
    };
    for name in ["llama", "qwen2", "qwen3", "llama-00001-of-00002"] {
        let folder = open(name);
        let adapter = adapter(&folder, 0.1, &work.path().join(format!("{name}-adapter")));
        let mut adapted = load(&folder);
        let base = logits(&adapted);
        let facts = ModelFacts::default();
        let device = Device::flex();
        peft::attach_folder(&mut adapted, &adapter.folder, 1.0, facts, "a", &device).unwrap();
        let expected = logits(&adapted);
        let output = work.path().join(name);
        let report = merged(name, &[adapter], StagedDir::new(&output).unwrap());
        assert!(
            report.change_kept() > 0.9,
            "{name}: {}",
            report.change_kept()
        );
        let found = open_at(&output);
        let found = logits(&load(&found));
        let (changed, off) = (distance(&base, &expected), distance(&found, &expected));
        // Codes of 2 to 6 bits are not exact, but the change is there.
        assert!(off < 0.5 * changed, "{name}: {off} of {changed}");
    }
}

#[test]
fn a_single_file_is_written_where_it_is_named() {
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged.gguf");
    merged("llama", &[], StagedDir::of_file(&output).unwrap());
    let checkpoint = open_file(&output).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "llama");
    // Two files cannot become one.
    let folder = open("llama-00001-of-00002");
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let staged = StagedDir::of_file(&work.path().join("other.gguf")).unwrap();
    let target = MergeTarget::SameScheme(&Nearest);
    let plan = MergePlan::new(&folder, &schemes, &[], target).unwrap();
    let error = merge_staged(plan, staged, &|_, _| ()).unwrap_err();
    assert!(
        error.to_string().contains("the model is in 2 files"),
        "{error}"
    );
}
