//! Dense weights beside what a library made of them.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Dtype, Keys, Matrix, Nearest, NewTensor, Registration, TensorView, float_format,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::layer::alone;

/// A tensor that a backend made of a dense weight, and that of the scheme's own library.
#[derive(Debug)]
#[non_exhaustive]
pub struct Quantized {
    /// The backend's.
    pub found: NewTensor,
    /// The library's.
    pub expected: TensorView,
}

impl Quantized {
    /// Fails unless dtype, shape and bytes are the same.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn check(&self) {
        let Self { found, expected } = self;
        let case = format!("{}: {}", expected.file().display(), found.name());
        self.check_kind();
        let pairs = expected.bytes().iter().zip(&found.bytes);
        if let Some((at, (expected, found))) = pairs.enumerate().find(|(_, (a, b))| a != b) {
            panic!("{case}: byte {at} is {found}, expected {expected}");
        }
    }

    /// As [`Self::check`], but floats may be off by so much of their size, or by this if they are
    /// smaller than 1: libraries add numbers up in orders of their own.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn check_near(&self, tolerance: f32) {
        self.check_kind();
        let (found, expected) = (floats(&self.found), self.expected.to_f32());
        let expected = expected.unwrap_or_else(|e| panic!("{e}"));
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!(
                (a - b).abs() <= tolerance * b.abs().max(1.0),
                "{}: {}: value {at} is {a}, expected {b}",
                self.expected.file().display(),
                self.found.name()
            );
        }
    }

    #[track_caller]
    fn check_kind(&self) {
        let Self { found, expected } = self;
        assert_eq!(
            (found.dtype, &found.shape[..], found.bytes.len()),
            (expected.dtype(), expected.shape(), expected.bytes().len()),
            "{}: {}",
            expected.file().display(),
            found.name()
        );
    }
}

fn floats(tensor: &NewTensor) -> Vec<f32> {
    let format = float_format(tensor.dtype).expect("floats where the library has some");
    let mut values = vec![0.0; tensor.bytes.len() / format.size()];
    format.decode(&tensor.bytes, &mut values);
    values
}

/// Quantizes the weights `<path>.weight` that `source.safetensors` in a folder has, by the settings,
/// and returns their tensors beside those of the folder's checkpoint, which are as many. `dtype` is
/// that of the model; without one it is the source's.
///
/// # Panics
/// If a file is damaged, the backend cannot quantize a weight, or makes other tensors than the
/// library.
#[track_caller]
pub fn quantized(
    registration: &Registration,
    folder: impl AsRef<Path>,
    settings: &Value,
    dtype: Option<Dtype>,
) -> Vec<Quantized> {
    let folder = folder.as_ref();
    let fail = |reason: &dyn std::fmt::Display| -> ! { panic!("{}: {reason}", folder.display()) };
    let file = std::fs::read(folder.join("source.safetensors")).unwrap_or_else(|e| fail(&e));
    let source = SafeTensors::deserialize(&file).unwrap_or_else(|e| fail(&e));
    let library = Checkpoint::open(folder).unwrap_or_else(|e| fail(&e));
    let keys = Keys::new("settings", settings.clone());
    let quantization = alone(registration).quantization(registration.name(), &keys);
    let quantization = quantization.unwrap_or_else(|e| fail(&e));
    let format = |dtype: Dtype| -> FloatFormat {
        float_format(dtype).unwrap_or_else(|| fail(&format!("dtype {dtype:?}")))
    };
    let mut all = Vec::new();
    for (name, tensor) in source.iter() {
        let path = name.strip_suffix(".weight").unwrap_or(name);
        let Ok(shape) = <[usize; 2]>::try_from(tensor.shape()) else {
            fail(&format!("`{name}` is no matrix"));
        };
        let mut values = vec![0.0; shape[0] * shape[1]];
        format(tensor.dtype()).decode(tensor.data(), &mut values);
        let weight = Matrix::new(values, shape);
        let format = format(dtype.unwrap_or(tensor.dtype()));
        let tensors = quantization.quantize(path, weight, format, &Nearest);
        let mut found = tensors.unwrap_or_else(|e| fail(&e));
        found.sort_by_key(NewTensor::name);
        let bias = format!("{path}.bias");
        let expected: Vec<&str> = library.under(path).filter(|name| *name != bias).collect();
        let names: Vec<String> = found.iter().map(NewTensor::name).collect();
        assert_eq!(names, expected, "{}", folder.display());
        all.extend(found.into_iter().map(|found| Quantized {
            expected: library.tensor(&found.name()).expect("it is listed"),
            found,
        }));
    }
    all
}
