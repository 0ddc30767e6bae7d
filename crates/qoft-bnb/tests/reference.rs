//! Layers written by the real bitsandbytes, against its own dequantization and forward.

use std::path::Path;

use qoft_bnb::{REGISTRATION_4BIT, REGISTRATION_8BIT};
use qoft_core::{
    BackendOptions, Checkpoint, LayerSource, LoadOptions, PackedWeight, Purpose, Registry,
};
use safetensors::SafeTensors;

fn registry() -> Registry {
    Registry::new([&REGISTRATION_4BIT, &REGISTRATION_8BIT]).unwrap()
}

/// A fixture opened as a checkpoint: the files have no `config.json` of their own.
fn checkpoint(variant: &Path) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let name = "model.safetensors";
    std::fs::copy(variant.join(name), dir.path().join(name)).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn variants() -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(qoft_fixtures::path("bnb")).unwrap();
    let mut paths: Vec<_> = folder
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    paths.sort();
    paths
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn whole(weight: &dyn PackedWeight) -> Vec<f32> {
    let [n, k] = weight.shape();
    let mut out = vec![0.0; n * k];
    weight.decode_tile(0..n, 0..k, &mut out);
    out
}

#[test]
fn every_variant_dequantizes_bit_for_bit() {
    let options = LoadOptions {
        purpose: Purpose::Dequantize,
        ..LoadOptions::default()
    };
    let mut layers = 0;
    for variant in variants() {
        let (_dir, checkpoint) = checkpoint(&variant);
        let expected = std::fs::read(variant.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        for (name, tensor) in expected.iter() {
            let Some(path) = name.strip_suffix(".weight") else {
                continue;
            };
            let layer = LayerSource::new(&checkpoint, path);
            let loaded = registry().load(&layer, &options).unwrap();
            let found: Vec<u32> = whole(&*loaded.weight).iter().map(|v| v.to_bits()).collect();
            let expected: Vec<u32> = floats(tensor.data()).iter().map(|v| v.to_bits()).collect();
            assert_eq!(loaded.weight.shape(), tensor.shape(), "{variant:?} {name}");
            assert!(found == expected, "{variant:?} {name}: values differ");
            layers += 1;
        }
    }
    assert!(layers >= 30, "only {layers} layers were compared");
}

#[test]
fn int8_forwards_equal_the_reference() {
    let option = |value| BackendOptions::parse(&[format!("bnb-8bit.int8_activations={value}")]);
    let mut compared = 0;
    for variant in variants() {
        let expected = std::fs::read(variant.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        let (_dir, checkpoint) = checkpoint(&variant);
        for (name, tensor) in expected.iter() {
            let Some(case) = name.strip_suffix(".input") else {
                continue;
            };
            for (mode, kind) in [("false", "train_output"), ("true", "eval_output")] {
                let options = LoadOptions {
                    backend: option(mode).unwrap(),
                    ..LoadOptions::default()
                };
                let loaded = registry()
                    .load(&LayerSource::new(&checkpoint, "proj"), &options)
                    .unwrap();
                let [n, k] = loaded.weight.shape();
                let mut x = floats(tensor.data());
                if let Some(quantizer) = &loaded.input_quantizer {
                    quantizer.quantize(&mut x, k);
                }
                let mut y = qoft_core::kernels::ops::packed_matmul(&x, &*loaded.weight, false);
                if let Some(bias) = &loaded.bias {
                    y.iter_mut()
                        .enumerate()
                        .for_each(|(i, y)| *y += bias[i % n]);
                }
                let reference = floats(expected.tensor(&format!("{case}.{kind}")).unwrap().data());
                let scale = reference.iter().fold(1.0f32, |max, v| max.max(v.abs()));
                for (a, b) in y.iter().zip(&reference) {
                    assert!(
                        (a - b).abs() <= 3e-5 * scale,
                        "{variant:?} {case} {kind}: {a} {b}"
                    );
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 16, "only {compared} forwards were compared");
}
