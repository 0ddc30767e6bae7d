//! Scaling the inputs of layers before a model is quantized leaves what it computes.

use crate::common::loss;
use burn::tensor::Device;
use qoft::core::{BackendOptions, Keys, LayerKind, Registry, Schemes};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::train::data::Example;
use qoft::{Calibration, CalibrationOptions, QuantizeOptions};
use serde_json::json;

/// Models, and how many layers of each have inputs that can be scaled: those of norms before attention
/// and feed-forward layers, of the gate and, where heads are not grouped, of the values.
const MODELS: [(&str, usize); 5] = [
    ("models/llama", 12),
    ("models/qwen2", 12),
    ("models/phi3", 6),
    ("models/olmo2", 4),
    ("models/gpt2", 0),
];

fn load(folder: &ModelFolder, registry: &Registry) -> CausalLm {
    let options = BackendOptions::default();
    let schemes: Schemes = registry.open(folder.checkpoint(), &options).unwrap();
    CausalLm::load(folder, &schemes, &Device::flex(), &mut |_, _| ()).unwrap()
}

#[test]
fn a_scaled_model_computes_the_same() {
    let registry = Registry::linked().unwrap();
    let keys = Keys::new("settings", json!({"group_size": 8}));
    let awq = registry.quantization("awq", &keys).unwrap();
    assert!(awq.scales_inputs());
    let options = QuantizeOptions::default();
    let ids: Vec<Vec<i32>> = (1..5)
        .map(|seed| (0..20).map(|i| (seed * 31 + i * i * 7) % 61).collect())
        .collect();
    for (name, scaled_layers) in MODELS {
        let path = qoft_fixtures::path(name);
        let folder = ModelFolder::open(&path, &Architectures::linked().unwrap()).unwrap();
        let layers = folder.known().unwrap().layers();
        let from = layers.iter().filter(|layer| layer.scaled_by.is_some());
        assert!(from.clone().all(|layer| layer.kind == LayerKind::Linear));
        assert_eq!(from.count(), scaled_layers, "{name}");

        let model = load(&folder, &registry);
        let examples: Vec<Example> = ids
            .iter()
            .map(|row| Example::new(row.iter().map(|&id| id as u32).collect(), row.clone()))
            .collect();
        let work = tempfile::tempdir().unwrap();
        let mut calibration = Calibration::collect(
            &model,
            &examples,
            &|_| true,
            work.path(),
            &CalibrationOptions::default(),
            &Device::flex(),
            &mut |_, _| (),
        )
        .unwrap();
        let scaled = qoft::scale_inputs(
            &folder,
            &registry,
            &awq,
            &options,
            &mut calibration,
            work.path(),
            &mut |_, _| (),
        )
        .unwrap();
        let names = folder.checkpoint().names();
        let bytes = |folder: &ModelFolder, name| {
            let tensor = folder.checkpoint().tensor(name).unwrap();
            tensor.bytes().to_vec()
        };
        let changed = names.filter(|name| bytes(&folder, name) != bytes(&scaled, name));
        let changed = changed.count();
        assert_eq!(changed > 0, scaled_layers > 0, "{name}: {changed}");
        let after = loss(&load(&scaled, &registry), &ids);
        let before = loss(&model, &ids);
        assert!((after - before).abs() < 1e-5, "{name}: {after} {before}");
    }
}
