//! Dense weights in a scheme.

use std::panic::{AssertUnwindSafe, catch_unwind};

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    BackendOptions, Error, Keys, LayerSource, Matrix, Nearest, NewTensor, Purpose, QuantizedLayer,
    QuantizedModel, Registry, Result,
};
use serde_json::Value;

use crate::compute::random;
use crate::damage::{odd_values, with_value};
use crate::layer::only_name;
use crate::layer_file::LayerFile;
use crate::requantize::distance;

const PATH: &str = "model.layers.0.mlp.up_proj";
/// What one bit a weight may cost, and more than anything else does.
const WORST: f64 = 0.5;

/// Weights of the shapes of layers, and of common ones, come back from a checkpoint that has the
/// settings as its configuration. Impossible settings are errors.
pub(crate) fn check(registry: &Registry, settings: &[Value], shapes: &[[usize; 2]]) {
    let mut written = 0;
    for settings in settings {
        for &shape in shapes.iter().chain(&[[128, 128], [192, 64]]) {
            let weight = weight(shape);
            match quantize(registry, settings, &weight) {
                Ok(tensors) => {
                    check_config(registry, settings, &weight, &tensors);
                    let read = read(registry, settings, tensors, shape);
                    let off = distance(&read, &weight);
                    assert!(off < WORST, "{settings}: {shape:?} comes back {off} off");
                    written += 1;
                }
                // A scheme need not have groups or tiles for every shape.
                Err(error) => {
                    let text = error.to_string();
                    let told = text.contains(PATH) || text.contains("settings");
                    assert!(told, "{settings}: {shape:?}: {text}");
                }
            }
        }
        for pointer in crate::damage::leaves(settings) {
            for value in odd_values() {
                let odd = with_value(settings, &pointer, value);
                let weight = weight([128, 128]);
                let tried = catch_unwind(AssertUnwindSafe(|| quantize(registry, &odd, &weight)));
                assert!(tried.is_ok(), "quantizing panics with {odd}");
            }
        }
    }
    assert!(written >= settings.len(), "only {written} weights written");
    let infinite = Matrix::new(vec![f32::INFINITY; 128 * 128], [128, 128]);
    let tried = quantize(registry, &settings[0], &infinite);
    assert!(tried.is_err(), "infinite weights are quantized");
}

/// The configuration that is written asks for the same tensors, and for the list of modules that was
/// given.
fn check_config(registry: &Registry, settings: &Value, weight: &Matrix, tensors: &[NewTensor]) {
    let name = only_name(registry);
    let read = |settings: &Value| {
        let keys = Keys::new("settings", settings.clone());
        registry.quantization(name, &keys).unwrap()
    };
    let skips = ["lm_head".to_owned(), "visual".to_owned()];
    let model = QuantizedModel::new(FloatFormat::F16, Some(&skips), &skips[..1]);
    let config = read(settings).config(&model);
    let keys = Keys::new("quantization_config", config.clone());
    let again = registry.quantization_of(&keys).unwrap();
    assert_eq!(again.backend(), name, "{config}");
    assert_eq!(again.skips(), Some(&skips[..]), "{config}");
    let found = again.quantize(PATH, weight.clone(), FloatFormat::F16, &Nearest);
    assert!(found.unwrap() == tensors, "{config} is not {settings}");
}

fn weight(shape: [usize; 2]) -> Matrix {
    let mut weight = Matrix::new(random(shape[0] * shape[1], 11), shape);
    weight.round(FloatFormat::F16);
    weight
}

fn quantize(registry: &Registry, settings: &Value, weight: &Matrix) -> Result<Vec<NewTensor>> {
    let keys = Keys::new("settings", settings.clone());
    let quantization = registry.quantization(only_name(registry), &keys)?;
    quantization.quantize(PATH, weight.clone(), FloatFormat::F16, &Nearest)
}

/// The layer as a reader finds it.
fn read(
    registry: &Registry,
    settings: &Value,
    tensors: Vec<NewTensor>,
    shape: [usize; 2],
) -> Matrix {
    let keys = Keys::new("settings", settings.clone());
    let quantization = registry.quantization(only_name(registry), &keys);
    let layers = [QuantizedLayer::new(PATH, shape)];
    let model = QuantizedModel::new(FloatFormat::F16, None, &[]).with_tensors(&layers, &[]);
    let metadata = quantization.map(|quantization| quantization.metadata(&model));
    let metadata = metadata.unwrap_or_else(|e| panic!("{settings}: {e}"));
    let file = LayerFile::of_new(PATH, settings, metadata, tensors);
    let read = file.with(|checkpoint| {
        let schemes = registry.open(checkpoint, &BackendOptions::default())?;
        let layer = LayerSource::new(checkpoint, PATH, Some(shape));
        let loaded = schemes.load(layer, Purpose::Dequantize)?;
        Ok::<_, Error>(Matrix::decode(&*loaded.weight))
    });
    let read = read.unwrap_or_else(|| panic!("{settings}: tensors whose bytes do not fit"));
    read.unwrap_or_else(|e| panic!("{settings}: {e}"))
}
