//! Writing changed weights in a scheme again.

use std::path::{Path, PathBuf};

use qoft_core::{
    Checkpoint, LayerSource, LoadOptions, Matrix, Nearest, NewTensor, Purpose, Registration,
    RequantizeOptions, Result,
};

use crate::layer_file::{FileTensor, LayerFile};
use crate::reference::expected_weights;

/// A layer that was written again.
#[derive(Debug, Clone)]
pub struct Requantized {
    /// The folder of its checkpoint.
    pub folder: PathBuf,
    /// Its module path.
    pub path: String,
    /// The number format, as `qoft inspect` prints it.
    pub format: String,
    /// How far the layer's own weight is from what is read back; or why it cannot be written.
    pub own: std::result::Result<f64, String>,
    /// The same for a weight whose inputs were rotated.
    pub rotated: std::result::Result<f64, String>,
}

/// Writes each layer of checkpoints with its own weight and with a rotated one, with the nearest
/// codes, and reads it back from a file with nothing else in it. Errors are relative: norms of
/// the difference by norms of the weight.
///
/// # Panics
/// If the tensors' names, dtypes or shapes are not those of the layer, or cannot be read.
pub fn requantize<P: AsRef<Path>>(
    registration: &'static Registration,
    folders: impl IntoIterator<Item = P>,
) -> Vec<Requantized> {
    let mut all = Vec::new();
    for folder in folders {
        let folder = folder.as_ref();
        let checkpoint = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}"));
        for path in expected_weights(folder).into_keys() {
            let weight = load(registration, &LayerSource::new(&checkpoint, &path));
            let weight = weight.unwrap_or_else(|e| panic!("{e}"));
            let decoded = Matrix::decode(&*weight);
            let write = |weight| written(registration, &checkpoint, &path, weight);
            all.push(Requantized {
                folder: folder.to_owned(),
                format: weight.info().format,
                own: write(&decoded),
                rotated: write(&rotated(decoded.clone())),
                path,
            });
        }
    }
    all
}

type Loaded = std::sync::Arc<dyn qoft_core::PackedWeight>;

fn load(registration: &Registration, layer: &LayerSource) -> Result<Loaded> {
    let options = LoadOptions {
        purpose: Purpose::Dequantize,
        ..LoadOptions::default()
    };
    Ok(registration.backend.load(layer, &options)?.weight)
}

fn written(
    registration: &'static Registration,
    checkpoint: &Checkpoint,
    path: &str,
    weight: &Matrix,
) -> std::result::Result<f64, String> {
    let options = RequantizeOptions {
        backend: LoadOptions::default().backend,
        search: &Nearest,
    };
    let source = LayerSource::new(checkpoint, path);
    let tensors = registration.backend.requantize(&source, weight, &options);
    let tensors = tensors.map_err(|e| e.to_string())?;
    let mut file = LayerFile::new(checkpoint, path);
    let own = file.own();
    let mut before: Vec<FileTensor> = own.iter().map(|&at| file.tensors[at].clone()).collect();
    let bias = before.iter().position(|t| t.name == format!("{path}.bias"));
    let bias = bias.map(|at| before.remove(at));
    let mut after: Vec<FileTensor> = tensors.into_iter().map(|t| named(path, t)).collect();
    for tensors in [&mut before, &mut after] {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let kinds = |tensors: &[FileTensor]| -> Vec<_> {
        let kind = |t: &FileTensor| (t.name.clone(), t.dtype, t.shape.clone());
        tensors.iter().map(kind).collect()
    };
    assert_eq!(kinds(&before), kinds(&after), "{path}");
    file.tensors = after;
    file.tensors.extend(bias);
    let read = file.with(|layer| load(registration, layer));
    let read = read.unwrap_or_else(|| panic!("{path}: tensors that no file can hold"));
    let read = read.unwrap_or_else(|e| panic!("{path}: {e}"));
    Ok(distance(&Matrix::decode(&*read), weight))
}

fn named(path: &str, tensor: NewTensor) -> FileTensor {
    FileTensor {
        name: format!("{path}.{}", tensor.suffix),
        dtype: tensor.dtype,
        shape: tensor.shape,
        bytes: tensor.bytes,
    }
}

fn distance(a: &Matrix, b: &Matrix) -> f64 {
    assert_eq!(a.shape, b.shape);
    let square = |v: f32| f64::from(v) * f64::from(v);
    let pairs = a.values.iter().zip(&b.values);
    let difference: f64 = pairs.map(|(a, b)| square(a - b)).sum();
    let norm: f64 = b.values.iter().map(|v| square(*v)).sum();
    if norm == 0.0 {
        difference.sqrt()
    } else {
        (difference / norm).sqrt()
    }
}

/// Mixes neighbouring inputs by rotations in planes.
fn rotated(mut weight: Matrix) -> Matrix {
    let (sin, cos) = 0.2f32.sin_cos();
    for row in weight.values.chunks_exact_mut(weight.shape[1]) {
        for distance in [1, 2, 4, 8] {
            for low in 0..row.len() {
                let high = low + distance;
                if low & distance == 0 && high < row.len() {
                    let (a, b) = (row[low], row[high]);
                    row[low] = cos * a - sin * b;
                    row[high] = sin * a + cos * b;
                }
            }
        }
    }
    weight
}
