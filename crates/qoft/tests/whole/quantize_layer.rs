//! Single layers of a dense checkpoint in other schemes.

use qoft::core::kernels::FloatFormat;
use qoft::core::{
    BackendOptions, Checkpoint, Error, Keys, LayerSource, Matrix, Nearest, NewTensor, Purpose,
    Registry, Result, WaitingFile,
};
use qoft::models::{Architectures, ModelFolder};
use qoft::quantize_layer;
use serde_json::{Value, json};

const PATH: &str = "model.layers.0.self_attn.q_proj";

fn open(model: &str) -> ModelFolder {
    let path = qoft_fixtures::path(model);
    ModelFolder::open(&path, &Architectures::linked().unwrap()).unwrap()
}

fn quantize(model: &str, path: &str, backend: &str, settings: &Value) -> Result<Vec<NewTensor>> {
    let registry = Registry::linked().unwrap();
    quantize_layer(&open(model), path, &registry, backend, settings, &Nearest)
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let squares = |values: Vec<f32>| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let pairs = a.values.iter().zip(&b.values);
    (squares(pairs.map(|(a, b)| a - b).collect()) / squares(b.values.clone())).sqrt()
}

fn dense(checkpoint: &Checkpoint) -> Matrix {
    let tensor = checkpoint.tensor(&format!("{PATH}.weight")).unwrap();
    Matrix::new(tensor.to_f32().unwrap(), tensor.matrix().unwrap())
}

#[test]
fn a_layer_of_a_dense_model_is_read_back_from_the_scheme() {
    let folder = open("models/llama");
    let weight = dense(folder.checkpoint());
    for (backend, settings, most) in [
        ("bnb-4bit", json!({"bnb_4bit_quant_type": "nf4"}), 0.1),
        ("bnb-8bit", json!({}), 0.01),
        ("hqq", json!({"nbits": 4, "group_size": 16}), 0.1),
        ("gptq", json!({"bits": 8, "group_size": 32}), 0.01),
        ("awq", json!({"group_size": 32}), 0.15),
    ] {
        let tensors = quantize("models/llama", PATH, backend, &settings).unwrap();
        let registry = Registry::linked().unwrap();
        let quantization = registry.quantization(backend, &Keys::new("settings", settings));
        let same = quantization.unwrap();
        let same = same.quantize(PATH, weight.clone(), FloatFormat::F32, &Nearest);
        assert_eq!(tensors, same.unwrap(), "{backend}");

        let mut checkpoint = folder.checkpoint().clone();
        let mut file = WaitingFile::new(&std::env::temp_dir()).unwrap();
        checkpoint.replace(PATH, &tensors, &mut file).unwrap();
        let schemes = registry.open(&checkpoint, &BackendOptions::default());
        let (schemes, shape) = (schemes.unwrap(), Some(weight.shape));
        let layer = schemes.find(LayerSource::new(&checkpoint, PATH, shape));
        let layer = layer.unwrap();
        assert_eq!(layer.backend(), backend);
        let read = Matrix::decode(&*layer.load(Purpose::Dequantize).unwrap().weight);
        let off = distance(&read, &weight);
        assert!(off > 0.0 && off < most, "{backend}: {off}");
    }
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let nothing = json!({});
    let quantized = quantize("models/llama_nf4", PATH, "bnb-8bit", &nothing);
    let text = quantized.unwrap_err().to_string();
    assert!(text.contains(PATH) && text.contains("already"), "{text}");
    let missing = quantize("models/llama", "model.layers.0.mlp.x", "bnb-8bit", &nothing);
    assert!(matches!(missing, Err(Error::NoBackend { .. })));
    let unknown = quantize("models/llama", PATH, "bnb-2bit", &nothing);
    assert!(matches!(unknown, Err(Error::UnknownBackend { .. })));
    let incapable = quantize("models/llama", PATH, "aqlm", &nothing);
    let text = incapable.unwrap_err().to_string();
    assert!(text.contains("aqlm"), "{text}");
    let wrong = quantize("models/llama", PATH, "hqq", &json!({"nbits": 7}));
    let text = wrong.unwrap_err().to_string();
    assert!(text.contains("nbits"), "{text}");
}
