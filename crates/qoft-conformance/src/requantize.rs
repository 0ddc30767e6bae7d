//! Writing changed weights in a scheme again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qoft_core::{
    BackendOptions, Checkpoint, Dtype, LayerSource, Matrix, Nearest, NewTensor, PackedWeight,
    Purpose, Registration, Schemes, WaitingFile,
};

use crate::layer::{Layer, Opened};
use crate::reference::expected_weights;

/// A layer that was written again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Requantized {
    /// The folder of its checkpoint.
    pub folder: PathBuf,
    /// Its module path.
    pub path: String,
    /// The number format, as `qoft inspect` prints it.
    pub format: String,
    /// How far the layer's own weight is from what is read back; or why it cannot be written.
    pub own: Result<f64, String>,
    /// The same for a weight whose inputs were rotated.
    pub rotated: Result<f64, String>,
}

/// Writes each layer of checkpoints with its own weight and with a rotated one, with the nearest
/// codes, and reads it back from the checkpoint that has its new tensors. Errors are relative:
/// norms of the difference by norms of the weight.
///
/// The other layers of a checkpoint must read as before, bit by bit, also where they share tensors
/// with the one that is written. Rotated ones are written one after another in the same
/// checkpoint, and each must still read the same at the end.
///
/// # Panics
/// If that is not so, or if the tensors' names, dtypes or shapes are not those of the layers, or
/// cannot be read.
pub fn requantize<P: AsRef<Path>>(
    registration: &'static Registration,
    folders: impl IntoIterator<Item = P>,
) -> Vec<Requantized> {
    requantize_with(registration, &BackendOptions::default(), folders)
}

/// As [`requantize`], with options of backends.
///
/// # Panics
/// As there.
pub fn requantize_with<P: AsRef<Path>>(
    registration: &'static Registration,
    options: &BackendOptions,
    folders: impl IntoIterator<Item = P>,
) -> Vec<Requantized> {
    let mut all = Vec::new();
    for folder in folders {
        let folder = folder.as_ref();
        let opened = Opened::new(registration, options, folder);
        let original = Written::new(&opened);
        let paths: Vec<String> = expected_weights(folder).into_keys().collect();
        let before: Vec<Matrix> = paths.iter().map(|path| original.weight(path)).collect();
        let (mut together, mut after) = (original.clone(), before.clone());
        for (at, path) in paths.iter().enumerate() {
            let mut alone = original.clone();
            let own = alone.write(path, &before[at]).map(|()| {
                for (other, before) in paths.iter().zip(&before).filter(|(p, _)| *p != path) {
                    let same = alone.weight(other) == *before;
                    assert!(same, "{path} was written, and {other} changed");
                }
                distance(&alone.weight(path), &before[at])
            });
            let rotated = rotated(before[at].clone());
            let written = together.write(path, &rotated).map(|()| {
                after[at] = together.weight(path);
                distance(&after[at], &rotated)
            });
            all.push(Requantized {
                folder: folder.to_owned(),
                path: path.clone(),
                format: original.load(path).info().format,
                own,
                rotated: written,
            });
        }
        for (path, after) in paths.iter().zip(&after) {
            let same = together.weight(path) == *after;
            assert!(same, "{path} changed when other layers were written");
        }
    }
    all
}

/// What one bit a weight may cost, and more than anything else does.
const WORST: f64 = 0.5;

/// A layer can be written with its own weight and with a rotated one, or the backend says which
/// layer it cannot write.
pub(crate) fn check(layer: &Layer) {
    let original = Written::new(layer.opened);
    let before = original.weight(layer.path);
    for weight in [before.clone(), rotated(before)] {
        let mut written = original.clone();
        match written.write(layer.path, &weight) {
            Ok(()) => {
                let off = distance(&written.weight(layer.path), &weight);
                assert!(off < WORST, "{layer}: comes back {off} off");
            }
            Err(error) => assert!(error.contains(layer.path), "{layer}: {error}"),
        }
    }
}

/// A checkpoint some of whose layers were written again.
#[derive(Clone)]
pub(crate) struct Written<'a> {
    schemes: &'a Schemes,
    checkpoint: Checkpoint,
}

impl<'a> Written<'a> {
    pub fn new(opened: &'a Opened) -> Self {
        Self {
            schemes: &opened.schemes,
            checkpoint: opened.checkpoint.clone(),
        }
    }

    fn load(&self, path: &str) -> Arc<dyn PackedWeight> {
        let layer = LayerSource::new(&self.checkpoint, path, None);
        let loaded = self.schemes.load(layer, Purpose::Dequantize);
        loaded.unwrap_or_else(|e| panic!("{e}")).weight
    }

    pub fn weight(&self, path: &str) -> Matrix {
        Matrix::decode(&*self.load(path))
    }

    /// Writes a layer with a weight; the error says why the backend does not.
    pub fn write(&mut self, path: &str, weight: &Matrix) -> Result<(), String> {
        let layer = LayerSource::new(&self.checkpoint, path, None);
        let layer = self.schemes.find(layer).and_then(|claimed| claimed.parse());
        let tensors = layer.and_then(|layer| layer.requantize(weight, &Nearest, &self.checkpoint));
        let tensors = tensors.map_err(|e| e.to_string())?;
        self.check(path, &tensors);
        let file = WaitingFile::new(&std::env::temp_dir());
        let replaced = file.and_then(|mut file| self.checkpoint.replace(path, &tensors, &mut file));
        replaced.unwrap_or_else(|e| panic!("{path}: {e}"));
        Ok(())
    }

    /// All tensors of the layer but its bias are there, and all are such as they were.
    fn check(&self, path: &str, tensors: &[NewTensor]) {
        let bias = format!("{path}.bias");
        let wanted = self.checkpoint.under(path).filter(|name| *name != bias);
        let own = tensors.iter().filter(|t| t.layer == path);
        let mut own: Vec<String> = own.map(NewTensor::name).collect();
        own.sort();
        assert_eq!(wanted.collect::<Vec<_>>(), own, "{path}");
        for tensor in tensors {
            let name = tensor.name();
            let before = self.checkpoint.tensor(&name);
            let before = before.unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(before.dtype(), tensor.dtype, "{name}");
            // A vector of bytes may be a text, which is as long as it is.
            let text = tensor.dtype == Dtype::U8 && tensor.shape.len() == 1;
            assert!(text || before.shape() == tensor.shape, "{name}");
        }
    }
}

/// The norm of the difference by that of `b`.
pub(crate) fn distance(a: &Matrix, b: &Matrix) -> f64 {
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
