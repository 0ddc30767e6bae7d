//! Parameters that are packed, but no linear layer's: the experts of a small gpt-oss.
#![cfg(all(feature = "bnb", feature = "mxfp4"))]

mod common;

use common::open;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Nearest, Registry, Schemes};
use qoft::{MergeTarget, NewScheme};
use safetensors::SafeTensors;

fn path() -> std::path::PathBuf {
    qoft_fixtures::path("packed/gpt_oss")
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
    let (folder, work) = (open(&path()), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let output = work.path().join("dense");
    let report = qoft::dequantize(&folder, &schemes, &output, FloatFormat::F32, &|_, _| ());
    report.unwrap();
    let dense = Checkpoint::open(&output).unwrap();
    check_dense(&dense);
    assert_eq!(dense.quantization_config(), None);
    // The others are there, too.
    let names = folder.checkpoint().names().count();
    assert_eq!(dense.names().count(), names - 4);
}

#[test]
fn a_merge_keeps_them_as_they_are() {
    let (folder, work) = (open(&path()), tempfile::tempdir().unwrap());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let output = work.path().join("merged");
    let target = MergeTarget::SameScheme(&Nearest);
    qoft::merge(&folder, &schemes, &[], target, &output, &|_, _| ()).unwrap();
    let (before, merged) = (folder.checkpoint(), Checkpoint::open(&output).unwrap());
    assert!(merged.names().eq(before.names()));
    for name in merged.names() {
        let (found, expected) = (merged.tensor(name).unwrap(), before.tensor(name).unwrap());
        assert!(found.is_same(&expected), "{name}");
    }
    assert_eq!(merged.config(), before.config());
}

#[test]
fn another_scheme_has_them_dense() {
    let (folder, work) = (open(&path()), tempfile::tempdir().unwrap());
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
    let folder = open(&path());
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let found = qoft::inspect(&folder, &schemes).unwrap();
    let packed: usize = expected()
        .iter()
        .map(|(_, shape, _)| shape.iter().product::<usize>())
        .sum();
    assert!(found.other_parameters > packed);
    assert!(found.layers.iter().all(|layer| layer.backend == "dense"));
}

#[test]
fn a_model_with_packed_experts_is_no_dense_one() {
    let (folder, work) = (open(&path()), tempfile::tempdir().unwrap());
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
    assert!(
        error.contains("experts.down_proj` is quantized already"),
        "{error}"
    );
}
