//! Merging of adapters with trained biases and whole modules, from PEFT.

use std::path::{Path, PathBuf};

use crate::common::{load, loss, open};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Dtype, Nearest, NewTensor, Schemes, WaitingFile};
use qoft::models::CausalLm;
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::{MergeOptions, MergeTarget, ScaledAdapter};
use serde_json::Value;

const TABLE: &str = "model.embed_tokens.weight";

struct Case {
    folder: PathBuf,
    model: PathBuf,
    rows: Vec<Vec<i32>>,
    /// With the adapter, by PEFT.
    loss: f64,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = qoft_fixtures::path(&format!("train/{name}"));
        let text = std::fs::read_to_string(folder.join("losses.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let model = expected["model"].as_str().unwrap();
        let rows = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
        let row = |line| serde_json::from_str::<Value>(line).unwrap()["input_ids"].take();
        let ids: Vec<Value> = rows.lines().map(row).collect();
        Self {
            model: qoft_fixtures::path(&format!("models/{model}")),
            rows: crate::common::rows(&ids.into()),
            loss: expected["final_loss"].as_f64().unwrap(),
            folder,
        }
    }

    fn merge(&self, strength: f64, target: MergeTarget, output: &Path) -> Checkpoint {
        self.merge_all(&[(&self.folder, strength)], target, output)
    }

    fn merge_all(
        &self,
        adapters: &[(&Path, f64)],
        target: MergeTarget,
        output: &Path,
    ) -> Checkpoint {
        let adapters = adapters.iter().map(|&(folder, strength)| {
            ScaledAdapter::new(
                AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
                strength,
            )
        });
        let folder = open(&self.model);
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        qoft::merge(
            &folder,
            &schemes,
            &adapters.collect::<Vec<_>>(),
            MergeOptions::new(target).min_kept(0.0),
            output,
            &|_, _| (),
        )
        .unwrap();
        Checkpoint::open(output).unwrap()
    }

    fn loss(&self, model: &CausalLm) -> f64 {
        loss(model, &self.rows)
    }
}

const CASES: [&str; 6] = [
    "qwen2_bias_all",
    "qwen2_bias_oft_only",
    "qwen2_own_decay",
    "nf4_lm_head",
    "llama_bias_head",
    "gpt2_own",
];

#[test]
fn merged_models_have_the_loss_of_the_adapter() {
    for name in CASES {
        let case = Case::new(name);
        let out = tempfile::tempdir().unwrap();
        let dense = out.path().join("dense");
        let target = MergeTarget::Dense(FloatFormat::F32);
        case.merge(1.0, target, &dense);
        let found = case.loss(&load(&dense, &[]));
        assert!(
            (found - case.loss).abs() < 2e-5,
            "{name}: {found} {}",
            case.loss
        );

        // Quantizing the rotated layers again costs something that is no matter here.
        if !name.starts_with("nf4") {
            let same = out.path().join("same");
            case.merge(1.0, MergeTarget::SameScheme(&Nearest), &same);
            let found = case.loss(&load(&same, &[]));
            assert!(
                (found - case.loss).abs() < 2e-5,
                "{name}: {found} {}",
                case.loss
            );
        }
    }
}

#[test]
fn merged_models_have_the_loss_of_the_adapter_with_its_strength() {
    for name in CASES {
        let case = Case::new(name);
        let mut adapted = load(&case.model, &[]);
        let model_type = adapted.config().model_type.clone();
        let folder = AdapterFolder::open(&case.folder, &Families::linked().unwrap()).unwrap();
        let (head, device) = ("lm_head", Device::flex());
        peft::attach_folder(
            &mut adapted,
            &folder,
            0.4,
            ModelFacts::of_type(&model_type).with_head(head),
            "a",
            &device,
        )
        .unwrap();
        let out = tempfile::tempdir().unwrap();
        let dense = out.path().join("dense");
        case.merge(0.4, MergeTarget::Dense(FloatFormat::F32), &dense);
        let (found, expected) = (case.loss(&load(&dense, &[])), case.loss(&adapted));
        assert!(
            (found - expected).abs() < 2e-5,
            "{name}: {found} {expected}"
        );
        assert!((found - case.loss).abs() > 1e-3, "{name}: {found}");
    }
}

#[test]
fn an_output_head_of_its_own_unties_the_merged_model() {
    let case = Case::new("nf4_lm_head");
    let out = tempfile::tempdir().unwrap();
    let merged = case.merge(
        1.0,
        MergeTarget::SameScheme(&Nearest),
        &out.path().join("m"),
    );
    assert_eq!(merged.config()["tie_word_embeddings"], false);
    let adapter = AdapterFolder::open(&case.folder, &Families::linked().unwrap()).unwrap();
    let head = merged.tensor("lm_head.weight").unwrap().to_f32().unwrap();
    assert_eq!(head, adapter.own()["lm_head.weight"].values);
    let before = Checkpoint::open(&case.model).unwrap();
    let bytes = |checkpoint: &Checkpoint| {
        let table = checkpoint.tensor(TABLE).unwrap();
        table.bytes().to_vec()
    };
    assert_eq!(bytes(&merged), bytes(&before));

    // The head keeps the old table when only the embedding trained.
    let case = Case::new("qwen2_own_decay");
    let merged = case.merge(
        1.0,
        MergeTarget::SameScheme(&Nearest),
        &out.path().join("n"),
    );
    let before = Checkpoint::open(&case.model).unwrap();
    let head = merged.tensor("lm_head.weight").unwrap().to_f32().unwrap();
    assert_eq!(head, before.tensor(TABLE).unwrap().to_f32().unwrap());
    assert_ne!(bytes(&merged), bytes(&before));
}

/// A module of one adapter, rotated by another one; GPT-2 stores it as `[in, out]`.
#[test]
fn a_whole_module_is_rotated_by_another_adapter() {
    let case = Case::new("gpt2_own");
    let out = tempfile::tempdir().unwrap();
    let rotation = out.path().join("rotation");
    std::fs::create_dir(&rotation).unwrap();
    let mut config = OftConfig::default();
    config.oft_block_size = 8;
    config.init_weights = false;
    let (head, device, mut model) = ("lm_head", Device::flex(), load(&case.model, &[]));
    peft::attach(
        &mut model,
        &config,
        ModelFacts::of_type("gpt2").with_head(head),
        "a",
        1,
        &device,
    )
    .unwrap();
    peft::save(&model, &config, "a", &rotation).unwrap();
    peft::load(
        &mut model,
        &case.folder,
        &Families::linked().unwrap(),
        ModelFacts::of_type("gpt2").with_head(head),
        "b",
        &device,
    )
    .unwrap();
    let expected = case.loss(&model);
    for strength in [0.0, 1.0] {
        let merged = out.path().join(strength.to_string());
        let adapters = [(&*rotation, strength), (&*case.folder, 1.0)];
        case.merge_all(&adapters, MergeTarget::SameScheme(&Nearest), &merged);
        let found = case.loss(&load(&merged, &[]));
        let same = (found - expected).abs() < 2e-5;
        assert_eq!(same, strength == 1.0, "{found} {expected}");
    }
}

#[test]
fn a_quantized_module_cannot_be_trained_whole() {
    let mut model = load(&qoft_fixtures::path("models/llama_nf4"), &[]);
    let mut config = OftConfig::default();
    config.common.modules_to_save = Some(vec!["mlp".into()]);
    let (head, device) = ("lm_head", Device::flex());
    let error = peft::attach(
        &mut model,
        &config,
        ModelFacts::of_type("llama").with_head(head),
        "a",
        1,
        &device,
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("mlp.gate_proj.weight` is quantized"),
        "{error}"
    );
}

/// PEFT saves embedding and head with an adapter if the vocabulary was changed before.
#[test]
fn saved_embeddings_stand_in_for_those_of_the_model() {
    let root = qoft_fixtures::path("saved_embeddings");
    let text = std::fs::read_to_string(root.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let rows = crate::common::rows(&expected["rows"]);
    let families = Families::linked().unwrap();
    for (name, reference) in expected["cases"].as_object().unwrap() {
        let case = Case {
            folder: root.join(name),
            model: qoft_fixtures::path(&format!("models/{name}")),
            rows: rows.clone(),
            loss: reference.as_f64().unwrap(),
        };
        let mut adapted = load(&case.model, &[]);
        let (facts, device) = (
            ModelFacts::of_type(name).with_head("lm_head"),
            Device::flex(),
        );
        peft::load(&mut adapted, &case.folder, &families, facts, "a", &device).unwrap();
        let out = tempfile::tempdir().unwrap();
        let dense = out.path().join("dense");
        case.merge(1.0, MergeTarget::Dense(FloatFormat::F32), &dense);
        for model in [adapted, load(&dense, &[])] {
            let found = case.loss(&model);
            assert!(
                (found - case.loss).abs() < 2e-5,
                "{name}: {found} {}",
                case.loss
            );
        }
        // The file of the adapter with two more tokens.
        let mut adapted = load(&case.model, &[]);
        let more = root.join("more");
        let error = peft::load(&mut adapted, &more, &families, facts, "a", &device).map(drop);
        let text = error.unwrap_err().to_string();
        for part in ["[64, 32]", "[66, 32]", "resize_token_embeddings(66)"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

/// Such as those of layers whose biases `config.json` switches off, or of a value head.
#[test]
fn biases_that_the_model_does_not_have_are_no_part_of_an_adapter() {
    let case = Case::new("qwen2_bias_all");
    let folder = open(&case.model);
    let mut checkpoint = folder.checkpoint().clone();
    let mut file = WaitingFile::new(&std::env::temp_dir()).unwrap();
    let paths = ["model.layers.0.self_attn.o_proj", "v_head"];
    let biases = paths.map(|path| {
        let bytes = FloatFormat::F32.to_bytes(&[0.5; 32]);
        NewTensor::new(path, "bias", Dtype::F32, &[32], bytes)
    });
    checkpoint.insert(&biases, &mut file).unwrap();
    let folder = folder.with_checkpoint(checkpoint);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let adapter = AdapterFolder::open(&case.folder, &Families::linked().unwrap()).unwrap();
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged");
    let (adapters, target) = (
        [ScaledAdapter::new(adapter, 1.0)],
        MergeTarget::Dense(FloatFormat::F32),
    );
    qoft::merge(&folder, &schemes, &adapters, target, &output, &|_, _| ()).unwrap();
    let written = Checkpoint::open(&output).unwrap();
    for path in paths {
        let bias = written.tensor(&format!("{path}.bias")).unwrap();
        assert_eq!(bias.to_f32().unwrap(), [0.5; 32], "{path}");
    }
    let found = case.loss(&load(&output, &[]));
    assert!((found - case.loss).abs() < 2e-5, "{found} {}", case.loss);
}
