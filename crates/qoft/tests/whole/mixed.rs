//! One dense layer among quantized ones, and one quantized among dense ones, in every scheme, whatever the
//! configuration says of them. A dense copy has nothing of the scheme.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::{loss, open, rows};
use qoft::core::kernels::FloatFormat;
use qoft::core::{
    BackendOptions, Checkpoint, Dtype, Matrix, NewTensor, Purpose, Registry, Schemes, WaitingFile,
    default_device,
};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::{DequantizeOptions, MaxShardSize};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// As other files of tests have it.
const TOLERANCE: f64 = 2e-4;
/// The layer that is not like the others.
const PATH: &str = "model.layers.0.self_attn.o_proj";
/// Keys under which configurations list the modules that stay dense.
const LISTS: [&str; 7] = [
    "modules_to_not_convert",
    "llm_int8_skip_modules",
    "skip_modules",
    "ignore",
    "exclude_modules",
    "ignored_layers",
    "linear_weights_not_to_quantize",
];

/// One whole model of each scheme whose layers leave their inputs as they are.
fn cases() -> Vec<(PathBuf, Value)> {
    let mut cases = Vec::new();
    for scheme in qoft_fixtures::folders("schemes") {
        if scheme.ends_with("inc-fp8") {
            continue;
        }
        let models = qoft_fixtures::folders(&format!("schemes/{}", name(&scheme)));
        let whole = models.into_iter().find_map(|folder| {
            let text = std::fs::read_to_string(folder.join("reference.json")).ok()?;
            Some((folder, serde_json::from_str(&text).unwrap()))
        });
        cases.push(whole.unwrap_or_else(|| panic!("no whole model in {}", scheme.display())));
    }
    cases
}

fn name(folder: &Path) -> &str {
    folder.file_name().unwrap().to_str().unwrap()
}

/// The model with the values of some layers as dense weights.
fn with_dense(folder: &ModelFolder, dense: impl Fn(&str) -> bool) -> Checkpoint {
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let mut checkpoint = folder.checkpoint().clone();
    let mut file = WaitingFile::new(&std::env::temp_dir()).unwrap();
    let layers = folder.known().unwrap().layers();
    let linear = layers.iter().filter(|layer| layer.path.contains("_proj"));
    for layer in linear.filter(|layer| dense(&layer.path)) {
        let loaded = schemes.find(folder.source(&layer.path)).unwrap();
        let loaded = loaded.load(Purpose::Dequantize).unwrap();
        let weight = Matrix::decode(&*loaded.weight);
        let bytes = FloatFormat::F32.to_bytes(&weight.values);
        let tensor = NewTensor::new(&*layer.path, "weight", Dtype::F32, &weight.shape, bytes);
        checkpoint
            .replace(&layer.path, &[tensor], &mut file)
            .unwrap();
    }
    checkpoint
}

/// The checkpoint with these modules in all lists; without any lists for null.
fn listing(checkpoint: &Checkpoint, modules: &Value) -> Checkpoint {
    let mut config = checkpoint.config().clone();
    if let Some(own) = config.get_mut("quantization_config") {
        for key in LISTS {
            own.as_object_mut().unwrap().shift_remove(key);
            if !modules.is_null() {
                own[key] = modules.clone();
            }
        }
    }
    checkpoint.clone().with_config(config)
}

/// The loss of a model with the rows of a reference.
fn loss_of(checkpoint: Checkpoint, reference: &Value, what: &str) -> f64 {
    let folder = ModelFolder::new(checkpoint, &Architectures::linked().unwrap());
    let registry = Registry::linked().unwrap();
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default());
    let schemes = schemes.unwrap_or_else(|e| panic!("{what}: {e}"));
    let model = CausalLm::load(
        &folder,
        &schemes,
        &default_device().unwrap(),
        &mut |_, _| (),
    );
    let model = model.unwrap_or_else(|e| panic!("{what}: {e}"));
    loss(&model, &rows(&reference["rows"]))
}

fn check_loss(checkpoint: Checkpoint, reference: &Value, what: &str) {
    let found = loss_of(checkpoint, reference, what);
    let expected = reference["loss"].as_f64().unwrap();
    assert!(
        (found - expected).abs() < TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn layers_are_told_by_their_tensors_whatever_lists_say() {
    for (folder, reference) in cases() {
        let model = open(&folder);
        let one_dense = with_dense(&model, |path| path == PATH);
        let one_quantized = with_dense(&model, |path| path != PATH);
        let lists = [
            json!(null),
            json!([]),
            json!([PATH]),
            json!(["lm_head", "model.layers.0.self_attn.q_proj", "down_proj"]),
            json!([format!("language_model.{PATH}"), "language_model.lm_head"]),
        ];
        for list in lists {
            let what = |kind: &str| format!("{}: {kind}, {list}", folder.display());
            check_loss(listing(&one_dense, &list), &reference, &what("one dense"));
            check_loss(
                listing(&one_quantized, &list),
                &reference,
                &what("one quantized"),
            );
        }
    }
}

#[test]
fn a_dense_copy_has_nothing_of_the_scheme() {
    let work = tempfile::tempdir().unwrap();
    for (folder, reference) in cases() {
        let model = open(&folder);
        let schemes = Schemes::linked(model.checkpoint()).unwrap();
        let output = work.path().join(name(folder.parent().unwrap()));
        let options = DequantizeOptions::from(FloatFormat::F32);
        let options = options.max_shard_size("40KB".parse::<MaxShardSize>().unwrap());
        qoft::dequantize(&model, &schemes, &output, options, &|_, _| ()).unwrap();
        let what = folder.display();
        let dense = Checkpoint::open(&output).unwrap();
        assert_eq!(dense.quantization_config(), None, "{what}");
        assert!(dense.metadata().is_empty(), "{what}");
        for file in schemes.config_files() {
            assert!(!output.join(file).exists(), "{what}: {file}");
        }
        let plain = |name: &str| name.ends_with(".weight") || name.ends_with(".bias");
        let odd = dense.names().find(|name| !plain(name));
        assert_eq!(odd, None, "{what}");
        let index = std::fs::read(output.join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let listed = index["weight_map"].as_object().unwrap().keys();
        let listed: BTreeSet<&str> = listed.map(String::as_str).collect();
        assert!(
            dense.names().eq(listed),
            "{what}: the index lists other tensors"
        );
        for file in dense.files() {
            let file = std::fs::read(file).unwrap();
            assert!(SafeTensors::deserialize(&file).is_ok(), "{what}");
        }
        check_loss(dense, &reference, &format!("{what}: a dense copy"));
    }
}

/// The libraries of these schemes compute in half precision, where such inputs are infinite.
#[test]
fn inputs_beyond_half_precision_stay_finite() {
    const NORM: &str = "model.layers.0.post_attention_layernorm";
    for (folder, reference) in cases() {
        if !["awq", "gptq"].contains(&name(folder.parent().unwrap())) {
            continue;
        }
        let model = open(&folder);
        let large = |mut checkpoint: Checkpoint| {
            let mut file = WaitingFile::new(&std::env::temp_dir()).unwrap();
            let norm = checkpoint.tensor(&format!("{NORM}.weight")).unwrap();
            let values: Vec<f32> = norm.to_f32().unwrap().iter().map(|v| v * 1e6).collect();
            let bytes = FloatFormat::F32.to_bytes(&values);
            let norm = NewTensor::new(NORM, "weight", Dtype::F32, norm.shape(), bytes);
            checkpoint.insert(&[norm], &mut file).unwrap();
            loss_of(checkpoint, &reference, &folder.display().to_string())
        };
        let packed = large(model.checkpoint().clone());
        let dense = large(with_dense(&model, |_| true));
        assert!(packed.is_finite(), "{}: {packed}", folder.display());
        assert!(
            (packed - dense).abs() < TOLERANCE,
            "{}: {packed}, {dense}",
            folder.display()
        );
    }
}
