//! Adapters as LoRA: the weights with all of it are those of the adapters.
#![cfg(feature = "all-schemes")]

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use burn::tensor::Device;
use common::{load, loss, rows};
use qoft::core::kernels::FloatFormat;
use qoft::core::peft::{self, AdapterFolder};
use qoft::core::{Checkpoint, LoadOptions, Registry};
use qoft::models::CausalLm;
use qoft::{LoraReport, MergeAdapter, dequantize, export_lora};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn export(model: &Path, adapters: &[&Path], rank: usize, output: &Path) -> LoraReport {
    let adapter = |folder: &&Path| MergeAdapter {
        folder: AdapterFolder::open(folder).unwrap(),
        strength: 1.0,
    };
    let adapters: Vec<_> = adapters.iter().map(adapter).collect();
    let checkpoint = Checkpoint::open(model).unwrap();
    let (registry, options) = (Registry::linked().unwrap(), LoadOptions::default());
    let rank = NonZeroUsize::new(rank).unwrap();
    let progress = &|_, _| ();
    export_lora(
        &checkpoint,
        &registry,
        &options,
        &adapters,
        rank,
        output,
        progress,
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(file: &Path) -> Tensors {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, tensor)| {
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let mut values = vec![0.0; tensor.shape().iter().product()];
        FloatFormat::F32.decode(tensor.data(), &mut values);
        (name.to_owned(), (tensor.shape().to_vec(), values))
    });
    tensors.collect()
}

/// Adds `B · A` to the weights of a dense checkpoint.
fn apply(lora: &Path, folder: &Path) {
    let lora = read(&lora.join("adapter_model.safetensors"));
    let file = folder.join("model.safetensors");
    let mut tensors = read(&file);
    let mut applied = 0;
    for (name, (shape, weight)) in &mut tensors {
        let Some(path) = name.strip_suffix(".weight") else {
            continue;
        };
        let part = |part: &str| lora.get(&format!("base_model.model.{path}.{part}.weight"));
        let (Some((a_shape, a)), Some((b_shape, b))) = (part("lora_A"), part("lora_B")) else {
            continue;
        };
        let (rank, cols) = (a_shape[0], a_shape[1]);
        assert_eq!((b_shape[0], b_shape[1], cols), (shape[0], rank, shape[1]));
        for (row, b) in weight.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
            for (a, b) in a.chunks_exact(cols).zip(b) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += a * b);
            }
        }
        applied += 1;
    }
    assert_eq!(applied * 2, lora.len());
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn all_of_a_lora_is_the_adapter() {
    let path = qoft_fixtures::path("adapters/expected.json");
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (model, names, key) in [
        ("llama_nf4", &["all_linear"][..], "rows"),
        ("llama_nf4", &["neumann5", "second"], "rows"),
        ("llama_int8", &["int8_cayley"], "rows"),
        ("llama", &["dense_all_linear"], "rows_dense"),
    ] {
        let model = qoft_fixtures::path(&format!("models/{model}"));
        let folders: Vec<_> = names
            .iter()
            .map(|name| qoft_fixtures::path(&format!("adapters/{name}")))
            .collect();
        let folders: Vec<&Path> = folders.iter().map(|folder| folder.as_path()).collect();
        let work = tempfile::tempdir().unwrap();
        let (lora, dense) = (work.path().join("lora"), work.path().join("dense"));
        let report = export(&model, &folders, 100_000, &lora);
        assert!(report.rank <= 192, "{}", report.rank);
        for layer in &report.layers {
            assert!(layer.residual < 1e-5, "{layer:?}");
            assert!(layer.change > 1e-3, "{layer:?}");
        }
        let checkpoint = Checkpoint::open(&model).unwrap();
        let registry = Registry::linked().unwrap();
        dequantize(&checkpoint, &registry, &dense, FloatFormat::F32, &|_, _| ()).unwrap();
        apply(&lora, &dense);

        let rows = rows(&reference[key]);
        let mut adapted = load(&model, &[]);
        for (number, folder) in folders.iter().enumerate() {
            let (name, device) = (number.to_string(), Device::flex());
            peft::load(
                &mut adapted,
                folder,
                "llama",
                CausalLm::HEAD,
                &name,
                &device,
            )
            .unwrap();
        }
        let (found, expected) = (loss(&load(&dense, &[]), &rows), loss(&adapted, &rows));
        assert!(
            (found - expected).abs() < 2e-4,
            "{names:?}: {found} {expected}"
        );
    }
}

#[test]
fn a_higher_rank_leaves_out_less() {
    let model = qoft_fixtures::path("models/llama_nf4");
    let adapter = qoft_fixtures::path("adapters/all_linear");
    let work = tempfile::tempdir().unwrap();
    let mut before: Option<LoraReport> = None;
    for rank in [1, 3, 9, 27, 64] {
        let report = export(
            &model,
            &[&adapter],
            rank,
            &work.path().join(rank.to_string()),
        );
        assert_eq!(report.rank, rank);
        for (index, layer) in report.layers.iter().enumerate() {
            let more = before.as_ref().map_or(1.0, |r| r.layers[index].residual);
            assert!(layer.residual < more, "rank {rank}: {layer:?}");
        }
        before = Some(report);
    }
}

#[test]
fn an_embedding_table_is_not_exported() {
    let checkpoint = Checkpoint::open(qoft_fixtures::path("models/llama_nf4")).unwrap();
    let (registry, options) = (Registry::linked().unwrap(), LoadOptions::default());
    let adapter = MergeAdapter {
        folder: AdapterFolder::open(&qoft_fixtures::path("adapters/embedding")).unwrap(),
        strength: 1.0,
    };
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("lora");
    let rank = NonZeroUsize::new(4).unwrap();
    let progress = &|_, _| ();
    let error = export_lora(
        &checkpoint,
        &registry,
        &options,
        &[adapter],
        rank,
        &output,
        progress,
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`model.embed_tokens` is an embedding table"),
        "{error}"
    );
    assert!(!output.exists());
}
