//! Models in GGUF files, against transformers.

mod export;
mod merging;

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Containers, Result, Schemes};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::train::tokenizer::Tokenizer;
use safetensors::SafeTensors;

const TEXT: &str = "The quick brown fox's 12345 jumps\n\n  over <|im_end|> naïve 漢字 don't!";

fn open_file(path: impl AsRef<Path>) -> Result<Checkpoint> {
    Containers::linked()?.open(path)
}

fn open_at(path: impl AsRef<Path>) -> ModelFolder {
    ModelFolder::new(open_file(path).unwrap(), &Architectures::linked().unwrap())
}

fn open(name: &str) -> ModelFolder {
    open_at(qoft_fixtures::path(&format!("gguf/{name}.gguf")))
}

fn load(folder: &ModelFolder) -> CausalLm {
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    CausalLm::load(folder, &schemes, &Device::flex(), &mut |_, _| ()).unwrap()
}

fn numbers(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<i64>) {
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks::<8>().0.iter();
    let values = values.map(|value| i64::from_le_bytes(*value)).collect();
    (tensor.shape().to_vec(), values)
}

#[test]
fn logits_are_those_of_transformers() {
    let bytes = std::fs::read(qoft_fixtures::path("gguf/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "phi3",
        "smollm3",
        "gemma3",
        "llama-00001-of-00002",
    ] {
        let model = load(&open(name));
        let of = name.split('-').next().unwrap();
        let (shape, ids) = numbers(&file, &format!("{of}.input_ids"));
        let logits = file.tensor(&format!("{of}.logits")).unwrap();
        let vocab = logits.shape()[2];
        let logits = logits.data().as_chunks::<4>().0.iter();
        let logits: Vec<f32> = logits.map(|v| f32::from_le_bytes(*v)).collect();
        for length in [1, 9, shape[1]] {
            let rows = ids.chunks(shape[1]).flat_map(|row| row[..length].to_vec());
            let data = TensorData::new(rows.collect::<Vec<i64>>(), [shape[0], length]);
            let found = model.last_logits(Tensor::<2, Int>::from_data(data, &Device::flex()), None);
            let found = found.into_data().try_to_vec::<f32>().unwrap();
            for (row, found) in found.chunks(vocab).enumerate() {
                let expected = &logits[(row * shape[1] + length - 1) * vocab..][..vocab];
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{name}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn text_becomes_the_tokens_of_transformers() {
    let bytes = std::fs::read(qoft_fixtures::path("gguf/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["llama", "qwen2", "qwen3"] {
        let path = qoft_fixtures::path(&format!("gguf/{name}.gguf"));
        let checkpoint = open_file(path).unwrap();
        let tokenizer = Tokenizer::from_dir(checkpoint.dir()).unwrap();
        let found = tokenizer.encode(TEXT, false).unwrap();
        let (_, expected) = numbers(&file, &format!("{name}.text_ids"));
        assert_eq!(
            found.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(),
            expected,
            "{name}"
        );
        assert_eq!(tokenizer.chat_template().is_ok(), name != "llama");
    }
}

#[test]
fn a_dense_folder_has_the_same_logits() {
    let work = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3"] {
        let (folder, output) = (open(name), work.path().join(name));
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        let report =
            qoft::dequantize(&folder, &schemes, &output, FloatFormat::F32, &|_, _| ()).unwrap();
        assert!(report.layers > 10, "{report:?}");
        let dense = ModelFolder::open(&output, &Architectures::linked().unwrap()).unwrap();
        assert!(
            dense
                .checkpoint()
                .names()
                .all(|name| !name.contains("weight."))
        );
        assert!(output.join("tokenizer.json").is_file());
        let ids = Tensor::<2, Int>::from_data([[7, 11, 300, 5]], &Device::flex());
        let logits = |model: CausalLm| {
            let logits = model.last_logits(ids.clone(), None).into_data();
            logits.try_to_vec::<f32>().unwrap()
        };
        let (packed, dense) = (logits(load(&folder)), logits(load(&dense)));
        for (packed, dense) in packed.iter().zip(&dense) {
            assert!((packed - dense).abs() < 1e-5, "{name}: {packed} {dense}");
        }
    }
}

#[test]
fn a_folder_with_one_model_is_that_model_and_one_with_several_asks_which() {
    let work = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let to = work.path().join(format!("{name}.gguf"));
        std::fs::copy(qoft_fixtures::path(&format!("gguf/{name}.gguf")), to).unwrap();
    };
    put("llama-00001-of-00002");
    put("llama-00002-of-00002");
    let checkpoint = open_file(work.path()).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "llama");
    assert_eq!(checkpoint.path(), work.path());
    put("qwen2");
    let error = open_file(work.path()).unwrap_err().to_string();
    assert!(
        error.contains("llama-00001-of-00002.gguf, qwen2.gguf"),
        "{error}"
    );
}
