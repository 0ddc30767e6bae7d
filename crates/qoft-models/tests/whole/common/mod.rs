//! Small models, also with other configurations, and rotations for tests of gradients.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Int, Tensor};
use qoft_core::{LayerKind, Result, Schemes, Walk, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_oft::{OftConfig, OftRotation, RotationSettings};
use serde_json::Value;

/// Models of all families.
pub const CASES: &[&str] = &[
    "cohere2",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma4_text",
    "glm4",
    "glm4_moe_options",
    "gpt2",
    "gpt2_options",
    "gpt_oss",
    "granite",
    "granitemoehybrid_experts",
    "hunyuan",
    "lfm2",
    "lfm2_options",
    "llama_bias",
    "ministral3",
    "mistral",
    "mistral3",
    "mixtral",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi3_partial",
    "qwen2_moe",
    "qwen2_sliding",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe_text",
    "qwen3_moe",
    "seed_oss_options",
    "smollm3",
    "starcoder2",
];

/// The model of a fixture.
pub fn load(case: &str) -> CausalLm {
    load_from(&qoft_fixtures::path(&format!("models/{case}"))).unwrap()
}

/// The model of a folder.
pub fn load_from(folder: &Path) -> Result<CausalLm> {
    let folder = ModelFolder::open(folder, &Architectures::linked()?)?;
    let schemes = Schemes::linked(folder.checkpoint())?;
    let device = default_device()?;
    CausalLm::load(&folder, &schemes, &device, &mut |_, _| {})
}

/// A copy of a fixture with another `config.json`.
pub fn with_config(case: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let source = qoft_fixtures::path(&format!("models/{case}"));
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    copy
}

/// A rotation of `in_features`, with small parameters that are those of `id`.
pub fn rotation(id: usize, in_features: usize, dropout: f64) -> OftRotation {
    let mut config = OftConfig::default();
    config.oft_block_size = 4;
    config.module_dropout = dropout;
    let settings = RotationSettings::new(&config, in_features);
    let [rows, cols] = settings.shape();
    let value = |i: usize| 0.05 * ((i * 7 + id * 3) as f32).sin();
    let values = (0..rows * cols).map(value).collect();
    let device = default_device().unwrap().autodiff();
    OftRotation::new(settings, values, ParamId::from(id as u64), &device)
}

/// Adds a rotation to each layer that can have one and whose path `wanted` accepts, all with small parameters that
/// differ from each other.
pub fn rotate(model: &mut CausalLm, dropout: f64, wanted: impl Fn(&str) -> bool) {
    let mut id = 0;
    model.walk_mut("", &mut |path, layer| {
        if matches!(layer.kind(), LayerKind::Norm | LayerKind::Conv1d) {
            return;
        }
        id += 1;
        if !wanted(path) {
            return;
        }
        let rotation = rotation(id, layer.in_features(), dropout);
        layer.adapters_mut().push("default", rotation).unwrap();
    });
}

/// Two rows of ids, what they predict, and how many predictions that is.
pub fn batch() -> (Tensor<2, Int>, Vec<Option<u32>>, f64) {
    let ids = [
        [4, 9, 14, 19, 24, 29, 34, 39],
        [63, 51, 40, 30, 21, 13, 6, 0],
    ];
    let targets = ids.iter().flat_map(|row| {
        let next = row[1..].iter().map(|&id: &i64| u32::try_from(id).ok());
        next.chain([None])
    });
    let targets = targets.collect();
    (
        Tensor::from_data(ids, &default_device().unwrap()),
        targets,
        14.0,
    )
}

pub fn loss(model: &CausalLm) -> Tensor<1> {
    let (ids, targets, count) = batch();
    model.loss(ids, targets, count)
}

/// Gradients by the path of their parameter.
pub type ByLayer = BTreeMap<String, Vec<f32>>;

/// Adds the gradients of all adapters, which are of other parameters than those before.
pub fn add(sum: &mut ByLayer, gradients: Gradients, model: &CausalLm) {
    let mut gradients = GradientsParams::from_grads(gradients, model);
    model.walk("", &mut |path, layer| {
        for slot in layer.adapters().slots() {
            for param in slot.params() {
                if let Some(gradient) = gradients.remove::<1>(param.id()) {
                    let values = gradient.into_data().try_into_vec().unwrap();
                    let path = format!("{path}.{}", param.name());
                    assert!(sum.insert(path, values).is_none(), "two gradients");
                }
            }
        }
    });
}

/// How alike the directions of all gradients together are.
pub fn cosine(a: &ByLayer, b: &ByLayer) -> f64 {
    let flat = |g: &ByLayer| -> Vec<f64> {
        let values = g.values().flatten();
        values.map(|&v| f64::from(v)).collect()
    };
    let (a, b) = (flat(a), flat(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}
