//! Merging into layers that EETQ quantized as one matrix and cut afterwards.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, CodeSearch, LayerSource, Matrix, Nearest, Purpose, Result, Schemes};
use qoft::models::{Architectures, ModelFolder};
use qoft::peft::{AdapterFolder, Families};
use qoft::{LayerSearch, MergeOptions, MergeReport, MergeTarget, ScaledAdapter, merge};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

const CASES: [&str; 2] = ["fused_sm80", "fused_sm70"];
const LAYERS: [&str; 7] = [
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "self_attn.k_proj",
    "self_attn.o_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
];
/// Layers that were one matrix.
const MATRICES: [&[&str]; 4] = [
    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    &["self_attn.o_proj"],
    &["mlp.gate_proj", "mlp.up_proj"],
    &["mlp.down_proj"],
];
/// What adapters are on.
const ADAPTED: [&[&str]; 6] = [
    &["self_attn.q_proj"],
    &["self_attn.v_proj"],
    &["self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"],
    &["mlp.gate_proj", "mlp.up_proj"],
    &["self_attn.o_proj"],
    &LAYERS,
];

fn path(layer: &str) -> String {
    format!("model.layers.0.{layer}")
}

/// The part of a model's adapter that is for some layers.
fn adapter(model: &Path, layers: &[&str], folder: &Path) -> ScaledAdapter {
    let from = model.join("trained");
    let text = std::fs::read(from.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    let targets: Vec<String> = layers.iter().map(|layer| path(layer)).collect();
    config["target_modules"] = targets.into();
    let file = std::fs::read(from.join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensors: Vec<(String, TensorView)> = tensors
        .iter()
        .filter(|(name, _)| layers.iter().any(|layer| name.contains(layer)))
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect();
    assert_eq!(tensors.len(), layers.len());
    std::fs::create_dir(folder).unwrap();
    let bytes = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    ScaledAdapter::new(
        AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
        1.0,
    )
}

fn merged(
    model: &Path,
    adapter: &ScaledAdapter,
    target: MergeTarget,
    output: PathBuf,
) -> (Checkpoint, MergeReport) {
    let folder = ModelFolder::open(model, &Architectures::linked().unwrap()).unwrap();
    let report = merge(
        &folder,
        &Schemes::linked(folder.checkpoint()).unwrap(),
        std::slice::from_ref(adapter),
        MergeOptions::new(target).min_kept(0.0),
        &output,
        &|_, _| (),
    );
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    (Checkpoint::open(&output).unwrap(), report)
}

fn weight(checkpoint: &Checkpoint, layer: &str) -> Matrix {
    let path = path(layer);
    let source = LayerSource::new(checkpoint, &path, None);
    let schemes = Schemes::linked(checkpoint).unwrap();
    let loaded = schemes.load(source, Purpose::Forward).unwrap();
    Matrix::decode(&*loaded.weight)
}

/// What EETQ makes of a weight: the scale of a row gives its largest value the code 128.
fn quantized(mut weight: Matrix) -> Matrix {
    for row in weight.values.chunks_exact_mut(weight.shape[1]) {
        let exact = row.iter().fold(0.0f32, |max, v| max.max(v.abs())) / 128.0;
        let mut stored = [exact];
        FloatFormat::F16.round(&mut stored);
        for value in row {
            *value = (*value / exact).round().clamp(-128.0, 127.0) * stored[0];
        }
    }
    weight
}

/// Nearest codes, with the layers that were asked for.
#[derive(Default)]
struct Recorded(Mutex<Vec<String>>);

impl LayerSearch for Recorded {
    fn search(&self, layer: &str, _before: Option<&Matrix>) -> Result<Box<dyn CodeSearch + '_>> {
        self.0.lock().unwrap().push(layer.to_owned());
        Ok(Box::new(Nearest))
    }
}

#[test]
fn adapted_layers_are_quantized_and_the_others_stay() {
    for case in CASES {
        let model = qoft_fixtures::path(&format!("schemes/eetq/{case}"));
        let before = Checkpoint::open(&model).unwrap();
        for adapted in ADAPTED {
            let work = tempfile::tempdir().unwrap();
            let adapter = adapter(&model, adapted, &work.path().join("adapter"));
            let dense = MergeTarget::Dense(FloatFormat::F32);
            let (dense, _) = merged(&model, &adapter, dense, work.path().join("dense"));
            let search = Recorded::default();
            let target = MergeTarget::SameScheme(&search);
            let (after, report) = merged(&model, &adapter, target, work.path().join("merged"));

            let expected: Vec<String> = adapted.iter().map(|layer| path(layer)).collect();
            let told = report.layers.iter().map(|layer| layer.name.clone());
            assert_eq!(told.collect::<Vec<_>>(), expected, "{case}");
            assert_eq!(search.0.into_inner().unwrap(), expected, "{case}");
            assert!(report.layers.iter().all(|layer| layer.searched));
            assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 3);
            assert!(before.names().eq(after.names()));
            for layer in LAYERS {
                let same = |suffix: &str| {
                    let name = format!("{}.{suffix}", path(layer));
                    let [old, new] = [&before, &after].map(|c| c.tensor(&name).unwrap());
                    old.bytes() == new.bytes()
                };
                let found = weight(&after, layer);
                if adapted.contains(&layer) {
                    let expected = quantized(weight(&dense, layer));
                    assert!(found == expected, "{case} {adapted:?}: {layer}");
                    assert!(!same("weight_scales"), "{case} {adapted:?}: {layer}");
                } else {
                    let stays = found == weight(&before, layer) && same("weight_scales");
                    assert!(stays, "{case} {adapted:?}: {layer}");
                }
                let matrix = MATRICES.into_iter().find(|m| m.contains(&layer)).unwrap();
                if !matrix.iter().any(|layer| adapted.contains(layer)) {
                    assert!(same("qweight"), "{case} {adapted:?}: {layer}");
                }
            }
        }
    }
}
