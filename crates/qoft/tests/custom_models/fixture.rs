//! Reading the fixtures.

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft::nn::OftConfig;
use safetensors::SafeTensors;
use serde_json::Value;

/// The path of a file or folder below `data/custom`.
#[track_caller]
pub fn path(name: &str) -> PathBuf {
    qoft_fixtures::path(&format!("custom/{name}"))
}

/// A JSON file below `data/custom`.
pub fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// The configuration of an adapter below `data/custom`, to train it anew.
pub fn config(case: &str) -> OftConfig {
    let read = OftConfig::read(&path(case).join("adapter_config.json"));
    let mut config = read.unwrap();
    config.common.inference_mode = false;
    config
}

/// The tensors of a file below `data/custom`.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(path(name)).unwrap())
    }

    /// The names of all tensors.
    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }

    /// A tensor of floats.
    #[track_caller]
    pub fn float<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, bytes) = self.bytes(name, safetensors::Dtype::F32);
        let chunks = bytes.chunks_exact(4);
        let values = chunks.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
        Tensor::from_data(data, &Device::flex())
    }

    /// A tensor of ids.
    #[track_caller]
    pub fn int(&self, name: &str) -> Tensor<2, Int> {
        let (shape, bytes) = self.bytes(name, safetensors::Dtype::I64);
        let chunks = bytes.chunks_exact(8);
        let values = chunks.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32);
        let data = TensorData::new(values.collect::<Vec<i32>>(), shape);
        Tensor::from_data(data, &Device::flex())
    }

    fn bytes(&self, name: &str, dtype: safetensors::Dtype) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.shape().to_vec(), view.data().to_vec())
    }
}

/// The numbers from -1 to 1 that the script makes as well.
pub fn numbers<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as u64;
    let hashed = (0..count).map(|i| (i * 2_654_435_761 % (1 << 32)) / 256);
    let values = hashed.map(|hash| (hash as f64 / f64::from(1 << 23) - 1.0) as f32);
    let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
    Tensor::from_data(data, &Device::flex())
}

/// How far two tensors are apart, where values above 1 count relative to their size.
pub fn off<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found.clone().inner(), expected.clone().inner()];
    let size = expected.clone().abs().clamp_min(1.0);
    ((found - expected).abs() / size).max().into_scalar()
}

/// Fails unless two tensors agree to 1e-5.
#[track_caller]
pub fn near<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>, what: &str) {
    let off = off(found, expected);
    assert!(off <= 1e-5, "{what}: off by {off}");
}
