//! Packed experts of a small gpt-oss: layers of a model that is known, and parameters that are no linear
//! layer's in a model of an architecture that nobody knows.

use std::path::Path;

use crate::common::open;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Nearest, Registry, Schemes};
use qoft::{MergeTarget, NewScheme};
use safetensors::SafeTensors;

fn path() -> std::path::PathBuf {
    qoft_fixtures::path("packed/gpt_oss")
}

/// The same model under a type that nobody knows.
fn unknown() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (path(), copy.path());
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["model_type"] = "unknown_moe".into();
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
    copy
}

/// The dense parameters as transformers has them, by name.
fn expected() -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = std::fs::read(path().join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let all = file.iter();
    all.map(|(name, tensor)| (name.into(), tensor.shape().to_vec(), tensor.data().to_vec()))
        .collect()
}

/// Fails unless the checkpoint has the experts dense, and nothing of the scheme.
fn check_dense(checkpoint: &Checkpoint) {
    let expected = expected();
    assert_eq!(expected.len(), 4);
    for (name, shape, bytes) in &expected {
        let tensor = checkpoint.tensor(name).unwrap();
        assert_eq!(tensor.shape(), shape, "{name}");
        let (mut values, decoded) = (vec![0.0; bytes.len() / 4], tensor.to_f32().unwrap());
        FloatFormat::F32.decode(bytes, &mut values);
        assert_eq!(decoded, values, "{name}");
    }
    let of_scheme = |name: &str| name.ends_with("_blocks") || name.ends_with("_scales");
    assert!(!checkpoint.names().any(of_scheme));
}

#[test]
fn a_dense_copy_has_the_experts_as_transformers_has_them() {
    let other = unknown();
    for path in [path(), other.path().to_owned()] {
        check_dense_copy(&path);
    }
}

fn check_dense_copy(path: &Path) {
    let (folder, work) = (open(path), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let output = work.path().join("dense");
    let report = qoft::dequantize(&folder, &schemes, &output, FloatFormat::F32, &|_, _| ());
    report.unwrap();
    let dense = Checkpoint::open(&output).unwrap();
    check_dense(&dense);
    assert_eq!(dense.quantization_config(), None);
    // The others are there, too.
    let names = Checkpoint::open(path).unwrap().names().count();
    assert_eq!(dense.names().count(), names - 4);
}

#[test]
fn a_merge_keeps_them_as_they_are() {
    let other = unknown();
    for path in [path(), other.path().to_owned()] {
        check_kept(&path);
    }
}

fn check_kept(path: &Path) {
    let (folder, work) = (open(path), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let output = work.path().join("merged");
    let target = MergeTarget::SameScheme(&Nearest);
    qoft::merge(&folder, &schemes, &[], target, &output, &|_, _| ()).unwrap();
    let [before, merged] = [path, &output].map(|path| Checkpoint::open(path).unwrap());
    assert!(merged.names().eq(before.names()));
    for name in merged.names() {
        let (found, expected) = (merged.tensor(name).unwrap(), before.tensor(name).unwrap());
        assert!(found.is_same(&expected), "{name}");
    }
    // Older programs read the positions by other keys.
    let mut config = merged.config().clone();
    let keys = config.as_object_mut().unwrap();
    for key in ["rope_theta", "rope_scaling"] {
        assert!(keys.remove(key).is_some(), "{key}");
    }
    assert_eq!(config, *before.config());
}

/// As transformers reads them.
#[test]
fn another_scheme_has_them_dense() {
    let other = unknown();
    for path in [path(), other.path().to_owned()] {
        check_in_another_scheme(&path);
    }
}

fn check_in_another_scheme(path: &Path) {
    let (folder, work) = (open(path), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let registry = Registry::linked().unwrap();
    let quantization = registry.parse_quantization("bnb-8bit").unwrap();
    let scheme = NewScheme::new(&registry, &quantization, &Nearest);
    let output = work.path().join("int8");
    let target = MergeTarget::NewScheme(scheme);
    qoft::merge(&folder, &schemes, &[], target, &output, &|_, _| ()).unwrap();
    let merged = Checkpoint::open(&output).unwrap();
    check_dense(&merged);
    assert!(merged.get("model.layers.0.self_attn.q_proj.SCB").is_some());
}

#[test]
fn their_values_are_counted() {
    let folder = unknown();
    let folder = open(folder.path());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let found = qoft::inspect(&folder, &schemes).unwrap();
    let packed: usize = expected()
        .iter()
        .map(|(_, shape, _)| shape.iter().product::<usize>())
        .sum();
    assert!(found.other_parameters > packed);
    assert!(found.layers.iter().all(|layer| layer.backend == "dense"));
    let known = open(&path());
    let known = qoft::inspect(&known, &schemes).unwrap();
    let of_scheme = known.layers.iter().filter(|layer| layer.backend == "mxfp4");
    assert_eq!(of_scheme.count(), 2 * 2 * 3);
    assert_eq!(
        known.linear_parameters + known.other_parameters,
        found.linear_parameters + found.other_parameters
    );
}

#[test]
fn a_model_with_packed_experts_is_no_dense_one() {
    let other = unknown();
    check_refused(&path(), "experts.0.down_proj` is quantized already");
    check_refused(other.path(), "experts.down_proj` is quantized already");
}

fn check_refused(path: &Path, reason: &str) {
    let (folder, work) = (open(path), tempfile::tempdir().unwrap());
    let registry = Registry::linked().unwrap();
    let quantization = registry.parse_quantization("bnb-8bit").unwrap();
    let staged = qoft::core::StagedDir::new(&work.path().join("quantized")).unwrap();
    let options = qoft::QuantizeOptions::default();
    let result = qoft::quantize_staged(
        &folder,
        &registry,
        &quantization,
        &options,
        &Nearest,
        staged,
        &|_, _| (),
    );
    let error = result.err().unwrap().to_string();
    assert!(error.contains(reason), "{error}");
}
