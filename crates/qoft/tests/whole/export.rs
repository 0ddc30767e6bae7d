//! Adapters as LoRA: the weights with all of it are those of the adapters.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::Schemes;
use qoft::core::kernels::FloatFormat;
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, CommonConfig, Families, ModelFacts};
use qoft::{LoraReport, ScaledAdapter, dequantize, export_lora};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn export(model: &Path, adapters: &[&Path], rank: usize, output: &Path) -> LoraReport {
    let adapter = |folder: &&Path| {
        ScaledAdapter::new(
            AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
            1.0,
        )
    };
    let adapters: Vec<_> = adapters.iter().map(adapter).collect();
    let folder = open(model);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let rank = NonZeroUsize::new(rank).unwrap();
    let progress = &|_, _| ();
    export_lora(&folder, &schemes, &adapters, rank, output, progress)
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

/// Adds `B · A` to the weights of a dense checkpoint, and puts in the biases and whole modules.
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
    // A head that was the table keeps the old one, as in PEFT.
    if let Some(table) = tensors.get("model.embed_tokens.weight").cloned() {
        tensors.entry("lm_head.weight".to_owned()).or_insert(table);
    }
    let own = lora.iter().filter(|(name, _)| !name.contains(".lora_"));
    for (name, (shape, values)) in own.clone() {
        let name = name.strip_prefix("base_model.model.").unwrap();
        let name = name.replace(".base_layer", "");
        let tensor = tensors.get_mut(&name).expect(&name);
        assert_eq!(tensor.0, *shape, "{name}");
        tensor.1.clone_from(values);
    }
    assert_eq!(applied * 2 + own.count(), lora.len());
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
    untie(folder);
}

/// Says that the output head is not the embedding table.
fn untie(folder: &Path) {
    let file = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["tie_word_embeddings"] = false.into();
    std::fs::write(&file, config.to_string()).unwrap();
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
        let folder = open(&model);
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        dequantize(&folder, &schemes, &dense, FloatFormat::F32, &|_, _| ()).unwrap();
        apply(&lora, &dense);

        let rows = rows(&reference[key]);
        let mut adapted = load(&model, &[]);
        for (number, folder) in folders.iter().enumerate() {
            let (name, device) = (number.to_string(), Device::flex());
            peft::load(
                &mut adapted,
                folder,
                &Families::linked().unwrap(),
                ModelFacts::of_type("llama").with_head("lm_head"),
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

/// Adapters of PEFT with trained biases and whole modules, and the losses that it had with them.
#[test]
fn biases_and_whole_modules_go_along() {
    for (name, bias, modules) in [
        ("qwen2_bias_all", "all", json!(null)),
        ("qwen2_bias_oft_only", "lora_only", json!(null)),
        (
            "qwen2_own_decay",
            "all",
            json!(["embed_tokens", "mlp", "norm"]),
        ),
        ("nf4_lm_head", "none", json!(["lm_head"])),
        ("llama_bias_head", "all", json!(["lm_head", "model.norm"])),
    ] {
        let adapter = qoft_fixtures::path(&format!("train/{name}"));
        let text = |file| std::fs::read_to_string(adapter.join(file)).unwrap();
        let expected: Value = serde_json::from_str(&text("losses.json")).unwrap();
        let model = expected["model"].as_str().unwrap();
        let model = qoft_fixtures::path(&format!("models/{model}"));
        let work = tempfile::tempdir().unwrap();
        let (lora, dense) = (work.path().join("lora"), work.path().join("dense"));
        let report = export(&model, &[&adapter], 100_000, &lora);
        assert!(report.own > 0, "{name}");
        let config = std::fs::read_to_string(lora.join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["bias"], bias, "{name}");
        assert_eq!(config["modules_to_save"], modules, "{name}");

        // The names are PEFT's, which has the same for OFT.
        let is_own = |name: &&String| !name.contains(".lora_") && !name.contains(".oft_R");
        let names = |folder: &Path| -> Vec<String> {
            let tensors = read(&folder.join("adapter_model.safetensors"));
            tensors.keys().filter(is_own).cloned().collect()
        };
        let mut before = names(&adapter);
        // With `bias: all` PEFT repeats the biases of whole modules.
        before.retain(|n| !n.contains("original_module") && !n.contains("modules_to_save"));
        assert_eq!(names(&lora), before, "{name}");

        let folder = open(&model);
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        dequantize(&folder, &schemes, &dense, FloatFormat::F32, &|_, _| ()).unwrap();
        apply(&lora, &dense);
        let row = |line| serde_json::from_str::<Value>(line).unwrap()["input_ids"].take();
        let ids: Vec<Value> = text("rows.jsonl").lines().map(row).collect();
        let found = loss(&load(&dense, &[]), &rows(&ids.into()));
        let expected = expected["final_loss"].as_f64().unwrap();
        assert!(
            (found - expected).abs() < 2e-4,
            "{name}: {found} {expected}"
        );
    }
}

#[test]
fn a_layer_cannot_be_whole_and_rotated() {
    let model = qoft_fixtures::path("models/qwen2");
    let folder = open(&model);
    let adapter = |folder: &Path| {
        ScaledAdapter::new(
            AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
            1.0,
        )
    };
    let whole = qoft_fixtures::path("train/qwen2_own_decay");
    let work = tempfile::tempdir().unwrap();
    let rotating = work.path().join("rotating");
    let mut model = load(&model, &[]);
    let mut config = OftConfig::default();
    config.oft_block_size = 8;
    config.common = CommonConfig::targeting(["up_proj"]);
    let device = Device::flex();
    peft::attach(
        &mut model,
        &config,
        ModelFacts::of_type("qwen2").with_head("lm_head"),
        "new",
        1,
        &device,
    )
    .unwrap();
    std::fs::create_dir(&rotating).unwrap();
    peft::save(&model, &config, "new", &rotating).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let rank = NonZeroUsize::new(4).unwrap();
    let output = work.path().join("lora");
    let error = export_lora(
        &folder,
        &schemes,
        &[adapter(&rotating), adapter(&whole)],
        rank,
        &output,
        &|_, _| (),
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("up_proj` in whole, for which another adapter has a rotation"),
        "{error}"
    );
    assert!(!output.exists());
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
    let folder = open(&qoft_fixtures::path("models/llama_nf4"));
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let adapter = ScaledAdapter::new(
        AdapterFolder::open(
            &qoft_fixtures::path("adapters/embedding"),
            &Families::linked().unwrap(),
        )
        .unwrap(),
        1.0,
    );
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("lora");
    let rank = NonZeroUsize::new(4).unwrap();
    let progress = &|_, _| ();
    let error = export_lora(&folder, &schemes, &[adapter], rank, &output, progress);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`model.embed_tokens` is an embedding table"),
        "{error}"
    );
    assert!(!output.exists());
}
