//! Models of the fixtures and their losses.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use qoft::core::{BackendOptions, Registry, default_device};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use serde_json::Value;

/// Opens the folder of a model.
#[allow(dead_code, reason = "not all tests use it")]
pub fn open(folder: &Path) -> ModelFolder {
    ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap()
}

/// Loads a model with options of backends.
#[allow(dead_code, reason = "not all tests use it")]
pub fn load(folder: &Path, options: &[&str]) -> CausalLm {
    let folder = open(folder);
    let options = BackendOptions::parse(options).unwrap();
    let registry = Registry::linked().unwrap();
    let schemes = registry.open(folder.checkpoint(), &options);
    let schemes = schemes.unwrap_or_else(|e| panic!("{e}"));
    CausalLm::load(
        &folder,
        &schemes,
        &default_device().unwrap(),
        &mut |_, _| (),
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

/// Token ids out of a JSON list of lists.
#[allow(dead_code, reason = "not all tests use it")]
pub fn rows(value: &Value) -> Vec<Vec<i32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Mean loss over all predicted tokens of the rows, each alone.
#[allow(dead_code, reason = "not all tests use it")]
pub fn loss(model: &CausalLm, rows: &[Vec<i32>]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for row in rows {
        let data = TensorData::new(row.clone(), [1, row.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &default_device().unwrap());
        let mut targets: Vec<_> = row[1..].iter().map(|&id| Some(id as u32)).collect();
        targets.push(None);
        sum += f64::from(model.loss(ids, targets, 1.0).into_scalar::<f32>());
        count += row.len() - 1;
    }
    sum / count as f64
}
