//! Weights with adapters multiplied into them.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::oft::{AdapterFolder, Targets};
use qoft_core::{Checkpoint, Error, LayerKind, Matrix, OftAdapter, OftRotation, Result};
use qoft_models::{CausalLm, ModelConfig};

use crate::layers::Claimed;

/// An adapter to merge.
#[derive(Debug, Clone)]
pub struct MergeAdapter {
    /// The adapter.
    pub folder: AdapterFolder,
    /// 1 for all of it; the rotation is that of so many times the parameters.
    pub strength: f64,
}

impl MergeAdapter {
    /// Whether it has a rotation for the layer.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.folder.paths().any(|adapted| adapted == path)
    }

    /// Whether it changes the layer.
    pub(crate) fn changes(&self, path: &str) -> bool {
        self.strength != 0.0 && self.has(path)
    }
}

/// Fails if an adapter does not belong to the checkpoint: if it has a rotation for a layer that is
/// not there, or lacks one for a layer that it targets. `tables` are the embedding tables that it
/// may change.
pub(crate) fn check(
    adapters: &[MergeAdapter],
    checkpoint: &Checkpoint,
    layers: &[Claimed],
    tables: &[&str],
) -> Result<()> {
    let config = checkpoint.config();
    let model_type = config["model_type"].as_str().unwrap_or_default();
    for adapter in adapters {
        let targets = Targets::new(adapter.folder.config(), model_type)?;
        let linear = layers.iter().map(|layer| (layer.path, LayerKind::Linear));
        let tables = tables.iter().map(|&path| (path, LayerKind::Embedding));
        let targeted = linear
            .chain(tables)
            .filter(|&(path, kind)| targets.matches(path, kind, path == CausalLm::HEAD));
        let targeted: BTreeSet<String> = targeted.map(|(path, _)| path.to_owned()).collect();
        if adapter.has(CausalLm::HEAD) && is_tied(checkpoint) {
            let reason = format!(
                "an adapter rotates the input of `{}`, which shares its weight with the embedding \
                 table and so has none of its own to change",
                CausalLm::HEAD
            );
            let file = checkpoint.dir().join("config.json").display().to_string();
            return Err(Error::config(file, "tie_word_embeddings", reason));
        }
        adapter.folder.check_unused(&targeted)?;
        adapter.folder.check_complete(&targeted)?;
    }
    Ok(())
}

/// Whether the output head is the embedding table.
pub(crate) fn is_tied(checkpoint: &Checkpoint) -> bool {
    let config = checkpoint.config();
    let stated = config["tie_word_embeddings"].as_bool().unwrap_or(false);
    ModelConfig::parse(config).map_or(stated, |config| config.tie_word_embeddings)
}

/// The weight of the layer at `path` with all adapters in it, and the largest ‖RᵀR − I‖
/// (Frobenius) of a block of their rotations.
pub(crate) fn rotated(
    mut weight: Matrix,
    adapters: &[MergeAdapter],
    path: &str,
) -> Result<(Matrix, f64)> {
    let mut orthogonality_error = 0.0f64;
    let mut changing: Vec<_> = adapters.iter().enumerate().collect();
    changing.retain(|(_, adapter)| adapter.changes(path));
    let is_table = changing.iter().any(|(_, a)| a.folder.is_embedding(path));
    for (_, adapter) in &changing {
        adapter.folder.check_base_weight(path, &weight)?;
    }
    // The last adapter stands next to the weight; the rows of a table meet the first one first.
    if !is_table {
        changing.reverse();
    }
    for (number, adapter) in changing {
        let (device, strength) = (Device::flex(), adapter.strength);
        let name = number.to_string();
        let in_features = weight.shape[1];
        let rotation = adapter
            .folder
            .rotation(path, in_features, strength, &name, &device)?;
        orthogonality_error = orthogonality_error.max(distance_from_orthogonal(&rotation));
        let rows = to_tensor(&weight);
        weight = from_tensor(match is_table {
            true => rotation.forward(rows),
            false => rotation.rotate_weight(rows),
        });
    }
    Ok((weight, orthogonality_error))
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

/// ‖found − wanted‖ / ‖wanted‖ (Frobenius), 0 if both are 0.
pub(crate) fn relative_error(found: &Matrix, wanted: &Matrix) -> f64 {
    let (mut off, mut size) = (0.0, 0.0);
    for (&found, &wanted) in found.values.iter().zip(&wanted.values) {
        off += f64::from(found - wanted).powi(2);
        size += f64::from(wanted).powi(2);
    }
    if off == 0.0 { 0.0 } else { (off / size).sqrt() }
}

/// A matrix on Burn's CPU device.
pub(crate) fn to_tensor(matrix: &Matrix) -> Tensor<2> {
    let data = TensorData::new(matrix.values.clone(), matrix.shape);
    Tensor::from_data(data, &Device::flex())
}

/// The values of a tensor of `f32`.
pub(crate) fn from_tensor(tensor: Tensor<2>) -> Matrix {
    let shape = tensor.dims();
    let values = tensor.into_data().try_into_vec::<f32>();
    Matrix {
        shape,
        values: values.expect("f32 in, f32 out"),
    }
}
