//! Merges that are written as GGUF files again.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use qoft::core::{Matrix, Nearest, Purpose, Schemes, StagedDir};
use qoft::models::{CausalLm, ModelFolder};
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::{MergePlan, MergeReport, MergeTarget, ScaledAdapter, merge_staged};
use safetensors::tensor::TensorView;

use super::{load, open, open_at, open_file};

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
    merged_model(&open(name), adapters, staged)
}

/// Merges adapters into a file, in the types that it has.
pub fn merged_model(
    folder: &ModelFolder,
    adapters: &[ScaledAdapter],
    staged: StagedDir,
) -> MergeReport {
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let target = MergeTarget::SameScheme(&Nearest);
    let plan = MergePlan::new(folder, &schemes, adapters, target).unwrap();
    let done = merge_staged(plan, staged, &|_, _| ()).and_then(|staged| staged.commit());
    done.unwrap_or_else(|e| panic!("{}: {e}", folder.checkpoint().path().display()))
}

#[test]
fn a_merge_of_nothing_is_the_same_file() {
    let work = tempfile::tempdir().unwrap();
    for name in [
        "llama",
        "qwen2",
        "qwen3",
        "phi3",
        "gemma3",
        "llama-00001-of-00002",
    ] {
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
pub fn weights(model: &ModelFolder) -> Vec<(String, Matrix)> {
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
fn a_merge_of_rotations_by_nothing_keeps_all_blocks() {
    let work = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3", "smollm3", "gemma3"] {
        let folder = open(name);
        let adapter = adapter(&folder, 0.0, &work.path().join(format!("{name}-adapter")));
        let output = work.path().join(name);
        let report = merged(name, &[adapter], StagedDir::new(&output).unwrap());
        assert!(report.layers.len() >= 14);
        let found = open_at(&output);
        for tensor in folder.checkpoint().names() {
            let tensors = [folder.checkpoint(), found.checkpoint()];
            let [before, after] = tensors.map(|c| c.tensor(tensor).unwrap().bytes().to_vec());
            assert!(before == after, "{name}: {tensor}");
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
