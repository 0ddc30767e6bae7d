//! Multiplying adapters into the weights of a checkpoint.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::kernels::FloatFormat;
use qoft_core::oft::AdapterFolder;
use qoft_core::{
    Checkpoint, CodeSearch, Dense, Dtype, Error, LayerSource, LoadOptions, Matrix, NewTensor,
    OftAdapter, OftRotation, Purpose, QuantBackend, Registry, RequantizeOptions, Result, StagedDir,
    write_file,
};
use safetensors::tensor::TensorView as View;
use serde_json::Value;

use crate::layers::{claimed, is_under};
use crate::write::{Output, fill};

/// An adapter to merge.
#[derive(Debug, Clone)]
pub struct MergeAdapter {
    /// The adapter.
    pub folder: AdapterFolder,
    /// 1 for all of it; the rotation is that of so many times the parameters.
    pub strength: f64,
}

/// What the merged checkpoint is like.
#[derive(Clone, Copy)]
pub enum MergeTarget<'a> {
    /// Dense weights in this format.
    Dense(FloatFormat),
    /// Every layer in the scheme that it had, with codes chosen by this search.
    SameScheme(&'a dyn CodeSearch),
}

/// What was merged and written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MergeReport {
    /// The layers that changed.
    pub layers: Vec<MergedLayer>,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// A layer that an adapter was multiplied into.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MergedLayer {
    /// Module path.
    pub name: String,
    /// The backend that claims it.
    pub backend: &'static str,
    /// The largest ‖RᵀR − I‖ (Frobenius) of a block of its rotations.
    pub orthogonality_error: f64,
    /// ‖written − rotated‖ / ‖rotated‖ (Frobenius): what rounding or quantizing again cost.
    pub relative_error: f64,
}

/// Writes a checkpoint with the adapters multiplied into its weights to the new folder `output`.
///
/// Adapters are applied to a layer's input in the order given, as [`qoft_core::Linear`] does. The
/// folder appears in one step when it is complete. `progress` is told how many of how many
/// pieces are done.
///
/// # Errors
/// If a layer is damaged or of no known scheme, an adapter does not fit or gives values that are
/// not finite, or the output cannot be written; then there is no output folder.
pub fn merge(
    checkpoint: &Checkpoint,
    registry: &Registry,
    options: &LoadOptions,
    adapters: &[MergeAdapter],
    target: MergeTarget,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MergeReport> {
    let staged = StagedDir::new(output)?;
    // Merged layers wait here, each in files of its own, so that memory holds one at a time.
    let waiting = tempfile::tempdir_in(staged.path()).map_err(Error::io(staged.path()))?;
    let layers = claimed(checkpoint, registry)?;
    let known: BTreeSet<String> = layers.iter().map(|layer| layer.path.to_owned()).collect();
    for adapter in adapters {
        adapter.folder.check_unused(&known)?;
    }
    let changes = |layer: &&crate::layers::Claimed| match target {
        MergeTarget::Dense(_) => {
            layer.backend.name() != Dense.name() || adapted(adapters, layer.path)
        }
        MergeTarget::SameScheme(_) => adapted(adapters, layer.path),
    };
    let changing: Vec<_> = layers.iter().filter(changes).collect();
    let (mut merged, mut outputs) = (Vec::new(), Vec::new());
    let pieces = changing.len() + checkpoint.names().count();
    for (index, layer) in changing.iter().enumerate() {
        let work = Work {
            source: LayerSource::new(checkpoint, layer.path),
            backend: layer.backend,
            options,
            target,
            folder: &waiting.path().join(index.to_string()),
        };
        let (report, tensors) = work.merge(adapters)?;
        if adapted(adapters, layer.path) {
            merged.push(report);
        }
        outputs.extend(tensors);
        progress(index + 1, pieces);
    }
    for name in checkpoint.names() {
        let owner = changing.iter().find(|layer| is_under(name, layer.path));
        if owner.is_none_or(|layer| name.strip_prefix(layer.path) == Some(".bias")) {
            outputs.push(kept(checkpoint, name, target)?);
        }
    }
    let config = match target {
        MergeTarget::Dense(format) => dense_config(checkpoint, format),
        MergeTarget::SameScheme(_) => checkpoint.config().clone(),
    };
    let (done, from) = (changing.len(), checkpoint.dir());
    let written = fill(&staged, outputs, &config, from, &|at, total| {
        progress(done + at, done + total);
    })?;
    waiting.close().map_err(Error::io(staged.path()))?;
    staged.commit()?;
    Ok(MergeReport {
        layers: merged,
        tensors: written.tensors,
        shards: written.shards,
        bytes: written.bytes,
    })
}

fn adapted(adapters: &[MergeAdapter], path: &str) -> bool {
    let mut paths = adapters.iter().flat_map(|adapter| adapter.folder.paths());
    paths.any(|adapted| adapted == path)
}

/// A tensor that no adapter touches: as it is, or in the format of a dense checkpoint.
fn kept<'a>(checkpoint: &'a Checkpoint, name: &str, target: MergeTarget) -> Result<Output<'a>> {
    let tensor = checkpoint.tensor(name)?;
    let MergeTarget::Dense(format) = target else {
        return Ok(Output::copy(tensor));
    };
    tensor.float_format()?;
    Ok(Output {
        name: name.to_owned(),
        dtype: dtype(format),
        shape: tensor.shape().to_vec(),
        data: Box::new(move || {
            let mut bytes = Vec::with_capacity(tensor.elements() * format.size());
            format.encode(&tensor.to_f32()?, &mut bytes);
            Ok(bytes)
        }),
    })
}

/// One layer on its way.
struct Work<'a> {
    source: LayerSource<'a>,
    backend: &'static dyn QuantBackend,
    options: &'a LoadOptions,
    target: MergeTarget<'a>,
    /// Where its new tensors wait.
    folder: &'a Path,
}

impl Work<'_> {
    fn merge(&self, adapters: &[MergeAdapter]) -> Result<(MergedLayer, Vec<Output<'static>>)> {
        let options = LoadOptions {
            purpose: Purpose::Dequantize,
            ..self.options.clone()
        };
        let path = self.source.path();
        let mut weight = Matrix::decode(&*self.backend.load(&self.source, &options)?.weight);
        let mut orthogonality_error = 0.0f64;
        // The last adapter stands next to the weight.
        for (number, adapter) in adapters.iter().enumerate().rev() {
            if !adapter.folder.paths().any(|adapted| adapted == path) {
                continue;
            }
            let (device, strength) = (Device::flex(), adapter.strength);
            let name = number.to_string();
            let in_features = weight.shape[1];
            let rotation = adapter
                .folder
                .rotation(path, in_features, strength, &name, &device)?;
            orthogonality_error = orthogonality_error.max(distance_from_orthogonal(&rotation));
            weight = rotate(weight, &rotation);
        }
        if weight.values.iter().any(|v| !v.is_finite()) {
            let reason = "the merged weight has values that are infinite or not a number";
            return Err(self.source.error(self.backend, reason));
        }
        let tensors = match self.target {
            MergeTarget::Dense(format) => vec![dense(&weight, format)],
            MergeTarget::SameScheme(search) => {
                let backend = self.options.backend.clone();
                let options = RequantizeOptions { backend, search };
                self.backend.requantize(&self.source, &weight, &options)?
            }
        };
        let waiting = self.store(&tensors)?;
        let written = self.read_back(&waiting, &options)?;
        let report = MergedLayer {
            name: path.to_owned(),
            backend: self.backend.name(),
            orthogonality_error,
            relative_error: relative_error(&written, &weight),
        };
        let names: Vec<&str> = waiting.under(path).collect();
        let tensors = names.into_iter().filter(|name| !name.ends_with(".bias"));
        let outputs = tensors.map(|name| waiting.tensor(name).map(Output::copy));
        Ok((report, outputs.collect::<Result<_>>()?))
    }

    /// Writes the layer's tensors to a checkpoint of their own.
    fn store(&self, tensors: &[NewTensor]) -> Result<Checkpoint> {
        let path = self.source.path();
        std::fs::create_dir(self.folder).map_err(Error::io(self.folder))?;
        let file = self.folder.join("model.safetensors");
        let mut views = Vec::new();
        for tensor in tensors {
            let view = View::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            let view = view.map_err(|e| Error::file(&file, e))?;
            views.push((format!("{path}.{}", tensor.suffix), view));
        }
        let bytes = safetensors::serialize(views, None).map_err(|e| Error::file(&file, e))?;
        std::fs::write(&file, bytes).map_err(Error::io(&file))?;
        let config = match (self.target, self.source.quantization_config()) {
            (MergeTarget::SameScheme(_), Some(config)) => {
                serde_json::json!({ "quantization_config": config })
            }
            _ => Value::Object(serde_json::Map::new()),
        };
        write_file(
            &self.folder.join("config.json"),
            config.to_string().as_bytes(),
        )?;
        Checkpoint::open(self.folder)
    }

    /// What readers will find in the new tensors.
    fn read_back(&self, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Matrix> {
        let source = LayerSource::new(checkpoint, self.source.path());
        let backend = match self.target {
            MergeTarget::Dense(_) => &Dense as &dyn QuantBackend,
            MergeTarget::SameScheme(_) => self.backend,
        };
        Ok(Matrix::decode(&*backend.load(&source, options)?.weight))
    }
}

/// `W · Rᵀ`.
fn rotate(weight: Matrix, rotation: &OftRotation) -> Matrix {
    let shape = weight.shape;
    let rows = Tensor::<2>::from_data(TensorData::new(weight.values, shape), &Device::flex());
    let rotated = rotation.rotate_weight(rows).into_data();
    let values = rotated.try_into_vec::<f32>().expect("f32 in, f32 out");
    Matrix { shape, values }
}

/// The largest ‖RᵀR − I‖ of a block.
fn distance_from_orthogonal(rotation: &OftRotation) -> f64 {
    let blocks = rotation.blocks();
    let [count, size, _] = blocks.dims();
    let identity = Tensor::<2>::eye(size, &blocks.device()).unsqueeze::<3>();
    let off = blocks.clone().swap_dims(1, 2).matmul(blocks) - identity;
    let squares = off.square().reshape([count, size * size]).sum_dim(1);
    squares
        .max()
        .into_data()
        .iter::<f64>()
        .next()
        .unwrap_or(0.0)
        .sqrt()
}

fn relative_error(found: &Matrix, wanted: &Matrix) -> f64 {
    let (mut off, mut size) = (0.0, 0.0);
    for (&found, &wanted) in found.values.iter().zip(&wanted.values) {
        off += f64::from(found - wanted).powi(2);
        size += f64::from(wanted).powi(2);
    }
    if size == 0.0 {
        0.0
    } else {
        (off / size).sqrt()
    }
}

fn dense(weight: &Matrix, format: FloatFormat) -> NewTensor {
    let mut bytes = Vec::with_capacity(weight.values.len() * format.size());
    format.encode(&weight.values, &mut bytes);
    NewTensor {
        suffix: "weight".into(),
        dtype: dtype(format),
        shape: weight.shape.to_vec(),
        bytes,
    }
}

fn dtype(format: FloatFormat) -> Dtype {
    match format {
        FloatFormat::F32 => Dtype::F32,
        FloatFormat::F16 => Dtype::F16,
        FloatFormat::Bf16 => Dtype::BF16,
    }
}

fn dense_config(checkpoint: &Checkpoint, format: FloatFormat) -> Value {
    let mut config = checkpoint.config().clone();
    if let Some(config) = config.as_object_mut() {
        config.shift_remove("quantization_config");
        let dtype = match format {
            FloatFormat::F32 => "float32",
            FloatFormat::F16 => "float16",
            FloatFormat::Bf16 => "bfloat16",
        };
        // Older versions of transformers read `torch_dtype`, newer ones `dtype`.
        let key = if config.contains_key("torch_dtype") {
            "torch_dtype"
        } else {
            "dtype"
        };
        config.insert(key.into(), dtype.into());
    }
    config
}
