//! Adapters in the form of other methods.

mod own_tensors;

use std::num::NonZeroUsize;
use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    ClaimedLayer, Dtype, Error, LayerKind, Matrix, Purpose, Result, Schemes, StagedDir, write_file,
};
use qoft_models::ModelFolder;
use qoft_peft::{PEFT_VERSION, PREFIX, text_expression};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::adapted::{check, facts, from_tensor, of_model, relative_error, rotated, to_tensor};
use crate::adapter::ScaledAdapter;
use crate::layers::{ModelLayers, check_readable, is_together};
use crate::svd::{Svd, truncated};
use crate::write::write_json;

use own_tensors::Own;

/// A tensor of `f32` in the output: its name, its shape and its bytes.
type Named = (String, Vec<usize>, Vec<u8>);

/// A LoRA that was written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LoraReport {
    /// Its `r`: the rank asked for, or the largest that a layer can have.
    pub rank: usize,
    /// The layers that it adapts.
    pub layers: Vec<LoraLayer>,
    /// Trained biases and tensors of whole modules that it has beside them.
    pub own: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// A layer of a LoRA, whose weight is to change by Δ = W · Rᵀ − W.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct LoraLayer {
    /// Module path.
    pub name: String,
    /// The backend that claims it.
    pub backend: &'static str,
    /// ‖Δ‖ / ‖W‖ (Frobenius).
    pub change: f64,
    /// ‖Δ − B · A‖ / ‖Δ‖ (Frobenius): what the rank leaves out.
    pub residual: f64,
}

/// Writes a PEFT LoRA folder that comes as near to the adapters as `rank` allows: for each layer
/// the truncated singular value decomposition of what they add to its weight.
///
/// The folder appears in one step when it is complete. `progress` is told how many of how many
/// layers are done.
///
/// # Errors
/// If a layer is damaged or of no known scheme, an adapter does not fit or gives values that are
/// not finite, or the output cannot be written; then there is no output folder.
pub fn export_lora(
    folder: &ModelFolder,
    schemes: &Schemes,
    adapters: &[ScaledAdapter],
    rank: NonZeroUsize,
    output: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<LoraReport> {
    let layers = ModelLayers::find(folder, schemes)?.layers;
    let adapters = &*of_model(adapters, folder)?;
    refuse_embeddings(adapters, folder)?;
    check(adapters, folder, &layers)?;
    let adapted = |layer: &&ClaimedLayer| adapters.iter().any(|adapter| adapter.has(layer.path()));
    let rotated: Vec<&ClaimedLayer> = layers.iter().filter(adapted).collect();
    check_readable(rotated.iter().copied())?;
    refuse_together(folder, &rotated)?;
    let own = Own::new(folder, &layers, &rotated, adapters)?;
    let staged = StagedDir::new(output)?;
    let layers = rotated;
    let (mut reports, mut pairs) = (Vec::new(), Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        let (report, pair) = lora_layer(layer, adapters, rank)?;
        reports.push(report);
        pairs.push(pair);
        progress(index + 1, layers.len());
    }
    let r = pairs.iter().map(|pair| pair.a.shape[0]).max();
    let r = r.unwrap_or(rank.get());
    let tensors = pairs.into_iter().zip(&reports);
    let tensors = tensors.flat_map(|(pair, report)| pair.padded(r).into_tensors(&report.name));
    let mut tensors: Vec<Named> = tensors.collect();
    tensors.extend(own.tensors()?);
    let facts = facts(folder);
    let alone = |(name, shape, bytes): &Named| {
        let name = facts.name_alone(name.strip_prefix(PREFIX)?)?;
        Some((format!("{PREFIX}{name}"), shape.clone(), bytes.clone()))
    };
    let alone: Vec<Named> = tensors.iter().filter_map(alone).collect();
    tensors.extend(alone);
    write_tensors(&staged.path().join("adapter_model.safetensors"), &tensors)?;
    let config = config(folder, adapters, &layers, r, &own);
    write_json(&staged.path().join("adapter_config.json"), &config)?;
    staged.commit()?;
    Ok(LoraReport {
        rank: r,
        layers: reports,
        own: own.len(),
        bytes: tensors.iter().map(|(.., bytes)| bytes.len()).sum(),
    })
}

fn refuse_embeddings(adapters: &[ScaledAdapter], model: &ModelFolder) -> Result<()> {
    let mut paths = adapters.iter().flat_map(|adapter| adapter.folder.paths());
    let table = paths.find(|path| model.kind(path) == LayerKind::Embedding);
    match table {
        None => Ok(()),
        Some(path) => {
            let reason = format!("`{path}` is an embedding table, which is not exported; merge it");
            Err(Error::config("adapter configuration").key("target_modules", reason))
        }
    }
}

/// Experts whose tensors files always have together are one parameter for PEFT, and two factors of each say
/// nothing there.
fn refuse_together(folder: &ModelFolder, rotated: &[&ClaimedLayer]) -> Result<()> {
    let mut together = rotated.iter().filter(|layer| is_together(folder, layer));
    match together.next() {
        None => Ok(()),
        Some(layer) => {
            let path = layer.path();
            let reason = format!("`{path}` has no form as a LoRA that PEFT reads; merge it");
            Err(Error::config("adapter configuration").key("target_modules", reason))
        }
    }
}

/// The two factors of a layer's LoRA.
struct Pair {
    /// `[rank, in_features]`
    a: Matrix,
    /// `[out_features, rank]`
    b: Matrix,
}

impl Pair {
    /// Half of each singular value goes to either side.
    fn new(svd: &Svd, [rows, cols]: [usize; 2]) -> Self {
        let rank = svd.values.len();
        let mut a = Vec::with_capacity(rank * cols);
        let mut b = vec![0.0; rows * rank];
        for (k, value) in svd.values.iter().enumerate() {
            let root = value.sqrt();
            a.extend(svd.right.col(k).iter().map(|v| (v * root) as f32));
            for (row, v) in b.chunks_exact_mut(rank).zip(svd.left.col(k).iter()) {
                row[k] = (v * root) as f32;
            }
        }
        Self {
            a: Matrix::new(a, [rank, cols]),
            b: Matrix::new(b, [rows, rank]),
        }
    }

    /// `B · A`.
    fn product(&self) -> Matrix {
        from_tensor(to_tensor(self.b.clone()).matmul(to_tensor(self.a.clone())))
    }

    /// With zeros where a layer has less than rank `r`: PEFT has one rank for all.
    fn padded(mut self, r: usize) -> Self {
        let [rank, cols] = self.a.shape;
        if rank == r {
            return self;
        }
        self.a.values.resize(r * cols, 0.0);
        self.a.shape[0] = r;
        let mut values = vec![0.0; self.b.shape[0] * r];
        for (to, from) in values.chunks_exact_mut(r).zip(self.b.rows()) {
            to[..rank].copy_from_slice(from);
        }
        let shape = [self.b.shape[0], r];
        self.b = Matrix::new(values, shape);
        self
    }

    fn into_tensors(self, path: &str) -> [Named; 2] {
        [("lora_A", self.a), ("lora_B", self.b)].map(|(part, matrix)| {
            let bytes = FloatFormat::F32.to_bytes(&matrix.values);
            (
                format!("{PREFIX}{path}.{part}.weight"),
                matrix.shape.to_vec(),
                bytes,
            )
        })
    }
}

fn lora_layer(
    layer: &ClaimedLayer,
    adapters: &[ScaledAdapter],
    rank: NonZeroUsize,
) -> Result<(LoraLayer, Pair)> {
    let source = layer.source();
    let weight = Matrix::decode(&*layer.load(Purpose::Forward)?.weight);
    let (mut delta, _) = rotated(weight.clone(), adapters, &source)?;
    let change = relative_error(&delta, &weight);
    for (value, before) in delta.values.iter_mut().zip(&weight.values) {
        *value -= before;
    }
    let finite = delta.values.iter().all(|v| v.is_finite());
    let svd = finite.then(|| truncated(&delta, rank.get())).flatten();
    let svd = svd.ok_or_else(|| {
        let reason = "the rotated weight has values that are infinite or not a number";
        source.error(reason)
    })?;
    let pair = Pair::new(&svd, delta.shape);
    let report = LoraLayer {
        name: layer.path().to_owned(),
        backend: layer.backend(),
        change,
        residual: relative_error(&pair.product(), &delta),
    };
    Ok((report, pair))
}

fn write_tensors(file: &Path, tensors: &[Named]) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.push((name, view.map_err(|e| Error::file(file, e))?));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(file, e))?;
    write_file(file, &bytes)
}

/// PEFT's configuration; keys that are missing have their defaults there.
fn config(
    folder: &ModelFolder,
    adapters: &[ScaledAdapter],
    layers: &[&ClaimedLayer],
    r: usize,
    own: &Own,
) -> Value {
    let checkpoint = folder.checkpoint();
    let paths = layers.iter().map(|layer| layer.path());
    let targets = match facts(folder).alone {
        Some(_) => json!(text_expression(paths)),
        None => json!(paths.collect::<Vec<_>>()),
    };
    let mut bases = adapters
        .iter()
        .map(|adapter| adapter.folder.config().to_json());
    let base =
        bases.find_map(|config| Some(config["base_model_name_or_path"].as_str()?.to_owned()));
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "peft_version": PEFT_VERSION,
        "base_model_name_or_path": base.unwrap_or_else(|| checkpoint.path().display().to_string()),
        "revision": null,
        "inference_mode": true,
        "r": r,
        "lora_alpha": r,
        "lora_dropout": 0.0,
        "use_rslora": false,
        "bias": own.bias(),
        "fan_in_fan_out": layers.iter().any(|layer| layer.source().is_fan_in_fan_out()),
        "init_lora_weights": true,
        "modules_to_save": own.modules_to_save(),
        "target_modules": targets,
    })
}
