//! Changed weights in the layers of the fixtures.

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    BackendOptions, Checkpoint, LayerSource, Matrix, Nearest, NewTensor, RequantizeOptions,
};
use qoft_hqq::REGISTRATION;
use safetensors::SafeTensors;

/// A weight is on its layer's grid already; rounding of products makes a difference, in bf16 most.
const OWN: f64 = 4e-3;

/// What rounding to so many codes costs.
fn expected(format: &str) -> f64 {
    match format {
        "int1" | "ternary" => 0.45,
        "int2" => 0.4,
        "int3" => 0.22,
        "int4" => 0.14,
        "int5" | "int6" => 0.06,
        _ => 0.01,
    }
}

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/hqq");
    // One folder holds a pickle.
    let folders = folders.iter().filter(|f| !f.ends_with("qmodel_pt"));
    let layers = qoft_conformance::requantize(&REGISTRATION, folders);
    assert!(layers.len() >= 100, "only {} layers", layers.len());
    for layer in layers {
        let (own, rotated) = (layer.own.clone().unwrap(), layer.rotated.clone().unwrap());
        assert!(own < OWN, "{layer:?}");
        assert!(rotated < expected(&layer.format), "{layer:?}");
        println!("{layer:?}");
    }
}

fn floats(tensor: &NewTensor) -> Vec<f32> {
    let format = qoft_core::float_format(tensor.dtype).unwrap();
    let mut values = vec![0.0; tensor.bytes.len() / format.size()];
    format.decode(&tensor.bytes, &mut values);
    values
}

#[test]
fn the_librarys_tensors_come_out_of_the_weights_that_it_had() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/hqq") {
        let Ok(source) = std::fs::read(folder.join("source.safetensors")) else {
            continue;
        };
        let source = SafeTensors::deserialize(&source).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for (name, tensor) in source.iter() {
            let path = name.strip_suffix(".weight").unwrap();
            let layer = LayerSource::new(&checkpoint, path);
            let mut values = vec![0.0; tensor.data().len() / 4];
            FloatFormat::F32.decode(tensor.data(), &mut values);
            let weight = Matrix {
                shape: tensor.shape().try_into().unwrap(),
                values,
            };
            let options = RequantizeOptions {
                backend: BackendOptions::default(),
                search: &Nearest,
            };
            let backend = REGISTRATION.backend;
            for found in backend.requantize(&layer, &weight, &options).unwrap() {
                let expected = layer.copy(&found.suffix).unwrap();
                let case = format!("{}: {path}.{}", folder.display(), found.suffix);
                if found.dtype != qoft_core::Dtype::F32 {
                    assert!(found == expected, "{case}");
                    continue;
                }
                // torch adds up the terms of a mean in another order.
                for (a, b) in floats(&found).into_iter().zip(floats(&expected)) {
                    assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{case}: {a} {b}");
                }
            }
            layers += 1;
        }
    }
    assert!(layers >= 12, "only {layers} layers");
}
