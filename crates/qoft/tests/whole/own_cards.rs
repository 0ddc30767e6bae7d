//! Trained biases of layers that have theirs in several tensors.

use std::path::Path;
use std::slice;

use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Nearest, Result, Schemes};
use qoft::models::{Architectures, ModelFolder};
use qoft::peft::{AdapterFolder, Families};
use qoft::{MergeOptions, MergeReport, MergeTarget, ScaledAdapter, merge};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

fn merged(adapters: &[ScaledAdapter], target: MergeTarget, output: &Path) -> Result<MergeReport> {
    let folder = qoft_fixtures::path("schemes/inc-fp8/two_cards");
    // It has some layers of a model only, so its architecture must not be known.
    let folder = ModelFolder::open(folder, &Architectures::new([])?)?;
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(&folder, &schemes, adapters, options, output, &|_, _| ())
}

/// A rotation that does nothing, and these biases.
fn write_biases(folder: &Path, biases: &[(String, Vec<f32>)]) {
    let config = json!({
        "peft_type": "OFT",
        "oft_block_size": 8,
        "r": 0,
        "target_modules": ["q_proj"],
        "bias": "all",
    });
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let rotation = (
        "model.layers.0.self_attn.q_proj.oft_R.weight".to_owned(),
        vec![6, 28],
        vec![0.0; 6 * 28],
    );
    let biases = biases.iter().cloned();
    let biases = biases.map(|(name, values)| (name, vec![values.len()], values));
    let tensors: Vec<_> = biases
        .chain([rotation])
        .map(|(name, shape, values)| {
            let bytes = FloatFormat::F32.to_bytes(&values);
            (format!("base_model.model.{name}"), shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.unwrap())
    });
    let file = folder.join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
}

#[test]
fn a_trained_bias_of_several_cards_becomes_dense() {
    let work = tempfile::tempdir().unwrap();
    let (plain, dense) = (
        work.path().join("plain"),
        MergeTarget::Dense(FloatFormat::F32),
    );
    merged(&[], dense, &plain).unwrap();
    let plain = Checkpoint::open(&plain).unwrap();
    let names = plain.names().filter(|name| name.ends_with(".bias"));
    let biases: Vec<(String, Vec<f32>)> = names
        .map(|name| {
            let values = plain.tensor(name).unwrap().to_f32().unwrap();
            (name.to_owned(), values.iter().map(|v| v + 0.5).collect())
        })
        .collect();
    assert_eq!(biases.len(), 7);
    let folder = work.path().join("adapter");
    write_biases(&folder, &biases);

    for strength in [1.0, 0.5] {
        let adapter = ScaledAdapter::new(
            AdapterFolder::open(&folder, &Families::linked().unwrap()).unwrap(),
            strength,
        );
        let output = work.path().join(format!("dense{strength}"));
        merged(slice::from_ref(&adapter), dense, &output).unwrap();
        let output = Checkpoint::open(&output).unwrap();
        for (name, trained) in &biases {
            let found = output.tensor(name).unwrap().to_f32().unwrap();
            assert_eq!(found.len(), trained.len());
            for (found, trained) in found.iter().zip(trained) {
                let expected = trained - 0.5 * (1.0 - strength as f32);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{name}: {found} {expected}"
                );
            }
        }
        let same = work.path().join("same");
        let error = merged(&[adapter], MergeTarget::SameScheme(&Nearest), &same);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("bias is spread over several"), "{error}");
        assert!(error.contains("--dequantize"), "{error}");
        assert!(!same.exists());
    }
}
