//! The rotation against products of dense matrices.

use qoft_core::burn::tensor::{Device, Tensor, TensorData};
use qoft_core::{AdapterParam, OftAdapter, ParamPlace, Pass, default_device};
use qoft_goft::GivensRotation;
use serde_json::Value;

fn values(case: &Value, key: &str) -> Vec<f32> {
    serde_json::from_value(case[key].clone()).expect("numbers")
}

fn rows(values: Vec<f32>, features: usize, device: &Device) -> Tensor<2> {
    let shape = [values.len() / features, features];
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn close<const D: usize>(found: Tensor<D>, expected: &[f32], what: &str) {
    let found: Vec<f32> = found.into_data().iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 2e-5,
            "{what}: {found}, not {expected}"
        );
    }
}

#[test]
fn rotations_and_gradients_are_those_of_dense_matrices() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/reference.json");
    let text = std::fs::read_to_string(file).expect("reference.json");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(cases.len(), 5);
    let device = default_device().expect("a device").autodiff();
    for case in cases {
        let features = case["features"].as_u64().expect("a number") as usize;
        let name = GivensRotation::ANGLES;
        let place = ParamPlace::of_adapter("default").at("layer").named(name);
        let id = place.id();
        let angles = AdapterParam::new(name, [features - 1], values(&case, "angles"), id, &device);
        let rotation = GivensRotation::new(angles, 1.0);
        let x = rows(values(&case, "input"), features, &device).require_grad();
        let y = rotation.forward(x.clone().into(), Pass::EVALUATION);
        let what = format!("{features} features");
        close(y.clone(), &values(&case, "output"), &what);
        let weights = rows(values(&case, "weights"), features, &device);
        let gradients = (y * weights).sum().backward();
        let gradient = rotation.params()[0].gradient(&gradients);
        close(
            gradient.expect("a gradient"),
            &values(&case, "angles_gradient"),
            &what,
        );
        let gradient = x.grad(&gradients).expect("a gradient");
        close(gradient, &values(&case, "input_gradient"), &what);
    }
}
