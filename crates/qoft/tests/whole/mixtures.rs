//! Mixtures of experts: adapters beside and on experts, merging, quantizing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{BackendOptions, Checkpoint, Dtype, Keys, Nearest, Registry, Schemes, Walk};
use qoft::models::{CausalLm, ModelFolder};
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, Families, ModelFacts, OneOrMany};
use qoft::train::model_facts;
use qoft::{MergeOptions, MergeTarget, QuantizeOptions, ScaledAdapter, inspect, merge};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

const DENSE: MergeTarget = MergeTarget::Dense(FloatFormat::F32);

fn model(case: &str) -> PathBuf {
    qoft_fixtures::path(&format!("models/{case}"))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn case_rows(case: &str) -> Vec<Vec<i32>> {
    rows(&json(&model(case).join("expected.json"))["rows"])
}

fn saved(folder: &Path) -> ScaledAdapter {
    let folder = AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap();
    ScaledAdapter::new(folder, 1.0)
}

fn merged(model: &ModelFolder, adapter: &Path, target: MergeTarget) -> (TempDir, PathBuf) {
    let schemes = Schemes::linked(model.checkpoint()).unwrap();
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged");
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(
        model,
        &schemes,
        &[saved(adapter)],
        options,
        &output,
        &|_, _| (),
    )
    .unwrap_or_else(|e| panic!("{e}"));
    (work, output)
}

fn facts(model: &CausalLm) -> ModelFacts<'_> {
    model_facts(model.spec())
}

/// A model with a new adapter, away from the identity, and a folder of it.
fn adapted(mut model: CausalLm, change: impl Fn(&mut OftConfig)) -> (CausalLm, TempDir) {
    let mut config = OftConfig::default();
    config.oft_block_size = 8;
    config.init_weights = false;
    change(&mut config);
    let plain = model.clone();
    peft::attach(
        &mut model,
        &config,
        facts(&plain),
        "default",
        1,
        &Device::flex(),
    )
    .unwrap_or_else(|e| panic!("{e}"));
    let folder = tempfile::tempdir().unwrap();
    peft::save(&model, &config, "default", folder.path()).unwrap();
    (model, folder)
}

/// Last components of the paths of the layers with rotations, and how many there are.
fn rotated(model: &CausalLm) -> (BTreeSet<String>, usize) {
    let layers = model.layers().into_iter();
    let layers = layers.filter(|(_, layer)| !layer.adapters().slots().is_empty());
    let paths: Vec<String> = layers.map(|(path, _)| path).collect();
    let names = paths.iter().map(|path| path.rsplit('.').next().unwrap());
    (names.map(str::to_owned).collect(), paths.len())
}

#[test]
fn adapters_of_peft_have_its_loss_also_when_merged() {
    for (adapter, cases) in [
        (
            "qwen3_moe_all_linear",
            &["qwen3_moe", "qwen3_moe_fused"][..],
        ),
        ("mixtral_pair", &["mixtral", "mixtral_fused"]),
        ("qwen2_moe_all_linear", &["qwen2_moe", "qwen2_moe_fused"]),
        ("olmoe_router", &["olmoe"]),
        ("gpt_oss_all_linear", &["gpt_oss"]),
        ("glm4_moe_all_linear", &["glm4_moe", "glm4_moe_fused"]),
    ] {
        let folder = qoft_fixtures::path(&format!("train/{adapter}"));
        let expected = json(&folder.join("losses.json"))["final_loss"]
            .as_f64()
            .unwrap();
        let text = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
        let row = |line: &str| serde_json::from_str::<Value>(line).unwrap()["input_ids"].take();
        let rows = rows(&text.lines().map(row).collect());
        for case in cases {
            let mut with = load(&model(case), &[]);
            let plain = with.clone();
            let families = Families::linked().unwrap();
            let device = Device::flex();
            peft::load(
                &mut with,
                &folder,
                &families,
                facts(&plain),
                "default",
                &device,
            )
            .unwrap();
            let (_work, output) = merged(
                &open(&model(case)),
                &folder,
                MergeTarget::SameScheme(&Nearest),
            );
            for found in [loss(&with, &rows), loss(&load(&output, &[]), &rows)] {
                assert!(
                    (found - expected).abs() < 2e-5 * expected,
                    "{case}: {found} {expected}"
                );
            }
        }
    }
}

#[test]
fn a_merged_model_has_each_expert_by_itself() {
    let (_, adapter) = adapted(load(&model("mixtral"), &[]), |_| ());
    for case in ["mixtral", "mixtral_fused"] {
        let (_work, output) = merged(&open(&model(case)), adapter.path(), DENSE);
        let (written, before) = (
            Checkpoint::open(&output).unwrap(),
            Checkpoint::open(model("mixtral")).unwrap(),
        );
        assert!(written.names().eq(before.names()));
        let expert = "model.layers.1.block_sparse_moe.experts.3.w3.weight";
        let bytes = |checkpoint: &Checkpoint| checkpoint.tensor(expert).unwrap().bytes().clone();
        assert_eq!(bytes(&written), bytes(&before));
    }
}

#[test]
fn targets_mean_experts_if_they_say_so() {
    let names = |targets: OneOrMany| {
        let with = |config: &mut OftConfig| config.common.target_modules = Some(targets.clone());
        rotated(&adapted(load(&model("qwen2_moe"), &[]), with).0)
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    // Of 4 layers 3 are mixtures of 5 experts.
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let shared = ["gate_proj", "up_proj", "down_proj", "shared_expert_gate"];
    let all = set(&[attention, shared].concat());
    assert_eq!(names("all-linear".into()), (all, 4 * 4 + 3 * 4 + 3));
    assert_eq!(names(["down_proj"].into()), (set(&["down_proj"]), 4));
    assert_eq!(
        names(["experts.*.down_proj"].into()),
        (set(&["down_proj"]), 15)
    );
    let both = ["q_proj", "experts.*.up_proj"].into();
    assert_eq!(names(both), (set(&["q_proj", "up_proj"]), 4 + 15));
    let expression = r".*\.0\.mlp\.experts\.\d+\.(gate|up)_proj";
    assert_eq!(
        names(expression.into()),
        (set(&["gate_proj", "up_proj"]), 10)
    );
    assert_eq!(names(r".*\.down_proj".into()), (set(&["down_proj"]), 4));
    let default = adapted(load(&model("qwen2_moe"), &[]), |_| ());
    assert_eq!(rotated(&default.0), (set(&["q_proj", "v_proj"]), 8));
}

#[test]
fn parameters_mean_all_experts_as_in_lora() {
    let rotated = |parameters: &[&str]| {
        let with = |config: &mut OftConfig| {
            let names = parameters.iter().map(|&name| name.to_owned());
            config.common.target_parameters = Some(names.collect());
        };
        // In transformers the parameters of mixtral are below `mlp`.
        let (with, folder) = adapted(load(&model("mixtral"), &[]), with);
        let config = json(&folder.path().join("adapter_config.json"));
        assert_eq!(config["target_modules"], json!([]));
        assert_eq!(config["target_parameters"], json!(parameters));
        let (_work, output) = merged(&open(&model("mixtral_fused")), folder.path(), DENSE);
        let rows = case_rows("mixtral");
        let (expected, found) = (loss(&with, &rows), loss(&load(&output, &[]), &rows));
        assert!(
            (found - expected).abs() < 1e-5 * expected,
            "{found} {expected}"
        );
        rotated(&with)
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(rotated(&["mlp.experts.down_proj"]), (set(&["w2"]), 8));
    let both = [
        "mlp.experts.gate_up_proj",
        "model.layers.1.mlp.experts.down_proj",
    ];
    assert_eq!(rotated(&both), (set(&["w1", "w2", "w3"]), 16 + 4));
}

/// As an older version of transformers and PEFT would write it, where experts are modules.
#[test]
fn a_file_with_experts_rotates_them_whatever_its_names_say() {
    let targets = |config: &mut OftConfig| {
        config.common.target_modules = Some(["q_proj", "experts.*.down_proj"].into());
    };
    let (with, folder) = adapted(load(&model("qwen3_moe"), &[]), targets);
    let path = folder.path().join("adapter_config.json");
    let mut config = json(&path);
    config["target_modules"] = json!(["down_proj", "q_proj"]);
    std::fs::write(&path, config.to_string()).unwrap();
    // The layer in the middle is no mixture: its layer has no rotation in the file.
    config["exclude_modules"] = json!(["model.layers.1.mlp.down_proj"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let rows = case_rows("qwen3_moe");
    let expected = loss(&with, &rows);
    let (_work, output) = merged(&open(&model("qwen3_moe")), folder.path(), DENSE);
    let found = loss(&load(&output, &[]), &rows);
    assert!(
        (found - expected).abs() < 1e-5 * expected,
        "{found} {expected}"
    );
}

fn quantized(folder: &ModelFolder, settings: Value) -> ModelFolder {
    let registry = Registry::linked().unwrap();
    let quantization = registry.quantization_of(&Keys::new("config", settings));
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default());
    let (options, progress) = (QuantizeOptions::default(), &mut |_, _| ());
    let (schemes, quantization) = (schemes.unwrap(), quantization.unwrap());
    qoft::quantize(
        folder,
        &schemes,
        &quantization,
        &options,
        &Nearest,
        progress,
    )
    .unwrap()
}

/// Writes a checkpoint with the tensors of all experts of a layer in one, as transformers holds them.
fn fused(checkpoint: &Checkpoint, experts: usize, folder: &Path) {
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let own = || (dtype, shape.to_vec(), tensor.bytes().to_vec());
        let Some((list, rest)) = name.split_once(".experts.") else {
            tensors.insert(name.to_owned(), own());
            continue;
        };
        let Some((end, layers)) = rest
            .strip_prefix("0.down_proj.weight")
            .map(|end| (end, &["down_proj"][..]))
            .or_else(|| {
                let end = rest.strip_prefix("0.gate_proj.weight")?;
                Some((end, &["gate_proj", "up_proj"][..]))
            })
        else {
            continue;
        };
        let parts = (0..experts).flat_map(|expert| layers.iter().map(move |layer| (expert, layer)));
        let bytes = parts.flat_map(|(expert, layer)| {
            let part = format!("{list}.experts.{expert}.{layer}.weight{end}");
            checkpoint.tensor(&part).unwrap().bytes().to_vec()
        });
        let parameter = ["down_proj", "gate_up_proj"][layers.len() - 1];
        let shape = vec![experts, layers.len() * shape[0], shape[1]];
        let name = format!("{list}.experts.{parameter}{end}");
        tensors.insert(name, (dtype, shape, bytes.collect()));
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    let config = checkpoint.config().to_string();
    std::fs::write(folder.join("config.json"), config).unwrap();
}

#[test]
fn scales_of_fused_experts_are_found() {
    let settings = json!({
        "quant_method": "fp8",
        "weight_block_size": [8, 8],
        "activation_scheme": "dynamic",
    });
    let single = quantized(&open(&model("qwen3_moe")), settings);
    let folder = tempfile::tempdir().unwrap();
    fused(single.checkpoint(), 6, folder.path());
    let stored = Checkpoint::open(folder.path()).unwrap();
    let scales = stored.tensor("model.layers.0.mlp.experts.gate_up_proj_scale_inv");
    assert_eq!(scales.unwrap().shape(), [6, 6, 4]);
    let schemes = Schemes::linked(single.checkpoint()).unwrap();
    let single = CausalLm::load(&single, &schemes, &Device::flex(), &mut |_, _| ()).unwrap();
    let rows = case_rows("qwen3_moe");
    assert_eq!(loss(&load(folder.path(), &[]), &rows), loss(&single, &rows));
}

#[test]
fn experts_are_quantized_and_routers_are_not() {
    let dense = open(&model("qwen3_moe_fused"));
    let registry = Registry::linked().unwrap();
    let keys =
        json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
    let quantized = quantized(&dense, keys);
    let schemes = registry
        .open(quantized.checkpoint(), &BackendOptions::default())
        .unwrap();
    let report = inspect(&quantized, &schemes).unwrap();
    let of = |backend: &str| {
        report
            .layers
            .iter()
            .filter(|layer| layer.backend == backend)
            .count()
    };
    // Two mixtures of 6 experts, one dense layer; two routers and the head stay dense.
    assert_eq!((of("bnb-4bit"), of("dense")), (3 * 4 + 2 * 6 * 3 + 3, 3));
    let routers: Vec<&str> = report
        .layers
        .iter()
        .filter(|layer| layer.backend == "dense")
        .map(|layer| layer.name.as_str())
        .collect();
    assert_eq!(
        routers,
        [
            "lm_head",
            "model.layers.0.mlp.gate",
            "model.layers.2.mlp.gate"
        ]
    );

    // Experts with rotations are written in the scheme again, and computed from it.
    let device = Device::flex();
    let load = |folder: &ModelFolder| {
        let schemes = registry
            .open(folder.checkpoint(), &BackendOptions::default())
            .unwrap();
        CausalLm::load(folder, &schemes, &device, &mut |_, _| ()).unwrap()
    };
    let targets = |config: &mut OftConfig| {
        config.common.target_modules = Some(["experts.*.down_proj"].into());
    };
    let (with, adapter) = adapted(load(&quantized), targets);
    let rows = case_rows("qwen3_moe");
    let expected = loss(&with, &rows);
    let (_work, output) = merged(&quantized, adapter.path(), DENSE);
    let found = loss(&load(&open(&output)), &rows);
    assert!(
        (found - expected).abs() < 1e-5 * expected,
        "{found} {expected}"
    );
    let (_work, output) = merged(
        &quantized,
        adapter.path(),
        MergeTarget::SameScheme(&Nearest),
    );
    let found = loss(&load(&open(&output)), &rows);
    assert!(
        (found - expected).abs() < 0.1 * expected,
        "{found} {expected}"
    );
}
