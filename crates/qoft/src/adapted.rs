//! Weights with adapters multiplied into them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::{ClaimedLayer, Composition, Error, LayerKind, LayerSource, Matrix, Pass, Result};
use qoft_models::{ModelFolder, ModelSpec};
use qoft_peft::{ModelFacts, ModuleKind, Modules, Selection, Site};
use qoft_train::model_facts;
use rayon::prelude::*;

use crate::adapter::ScaledAdapter;
use crate::layers::embeddings;
use crate::own;

/// Fails if an adapter does not belong to the checkpoint: if it has values for something that is
/// not there, or lacks some that it should have; or if two have the same module whole.
pub(crate) fn check(
    adapters: &[ScaledAdapter],
    folder: &ModelFolder,
    layers: &[ClaimedLayer],
) -> Result<()> {
    let (modules, facts) = (modules(folder, layers), facts(folder));
    let mut weights = BTreeSet::new();
    for adapter in adapters {
        expect_told_layout(adapter, folder)?;
        let selection = Selection::of_saved(&adapter.folder, facts, &modules)?;
        if adapter.has(facts.head) && folder.is_tied() {
            let reason = format!(
                "an adapter rotates the input of `{}`, which shares its weight with the embedding \
                 table and so has none of its own to change",
                facts.head
            );
            let file = folder
                .checkpoint()
                .dir()
                .join("config.json")
                .display()
                .to_string();
            return Err(Error::config(file).key("tie_word_embeddings", reason));
        }
        let own = own::expected(&selection, folder, layers)?;
        for (name, shape) in &own {
            adapter.folder.own_values(name, shape)?;
            if !name.ends_with(".bias") && !weights.insert(name.clone()) {
                let reason = format!("another adapter has `{name}` in whole, too");
                return Err(adapter.folder.error(reason));
            }
        }
        let own = own.into_keys().collect();
        adapter.folder.check_unused(selection.rotated(), &own)?;
        adapter.folder.check_complete(selection.rotated())?;
    }
    Ok(())
}

/// The adapters as they are for a model, see [`AdapterFolder::of_model`](qoft_peft::AdapterFolder::of_model)
/// and [`AdapterFolder::named_as_in`](qoft_peft::AdapterFolder::named_as_in).
pub(crate) fn of_model<'a>(
    adapters: &'a [ScaledAdapter],
    folder: &ModelFolder,
) -> Result<Cow<'a, [ScaledAdapter]>> {
    let facts = facts(folder);
    let modules = folder.known().map(known_modules);
    let mut own = Cow::Borrowed(adapters);
    for (index, adapter) in adapters.iter().enumerate() {
        let mut found = adapter.folder.of_model(facts);
        if let Some(modules) = &modules {
            let folder = found.as_ref().unwrap_or(&adapter.folder);
            if let Cow::Owned(named) = folder.named_as_in(modules)? {
                found = Some(named);
            }
        }
        if let Some(folder) = found {
            own.to_mut()[index].folder = folder;
        }
    }
    Ok(own)
}

/// Fails if an adapter says that there are dense weights of `[in_features, out_features]` in a model
/// whose architecture nobody knows: which ones these are nobody tells.
fn expect_told_layout(adapter: &ScaledAdapter, folder: &ModelFolder) -> Result<()> {
    const KEY: &str = "fan_in_fan_out";
    if folder.known().is_some() || adapter.folder.config().to_json()[KEY] != true {
        return Ok(());
    }
    let reason = "the architecture of the model is not known, so nothing says which of its weights are \
                  stored as [in, out]; false stands for none, as in torch.nn.Linear";
    Err(Error::config("adapter configuration").key(KEY, reason))
}

/// What PEFT's rules have to know of the model.
pub(crate) fn facts(folder: &ModelFolder) -> ModelFacts<'_> {
    let model_type = folder.checkpoint().config()["model_type"].as_str();
    let unknown = || ModelFacts::of_type(model_type.unwrap_or_default()).with_head(folder.head());
    folder.known().map_or_else(unknown, model_facts)
}

/// The modules of the model, as far as its architecture is known: no others are meant, such as those
/// that see images. Else those that tensors of the checkpoint belong to.
fn modules(folder: &ModelFolder, layers: &[ClaimedLayer]) -> Modules {
    if let Some(spec) = folder.known() {
        return known_modules(spec);
    }
    let tables = embeddings(folder).into_iter().map(|table| table.path());
    let matrices = layers.iter().map(|layer| layer.path()).chain(tables);
    let matrices: BTreeSet<&str> = matrices.collect();
    let modules = folder.checkpoint().modules().into_iter().map(|path| {
        let kind = match matrices.contains(path) {
            true => ModuleKind::Layer(folder.kind(path)),
            false => ModuleKind::Other,
        };
        (path, kind)
    });
    Modules::new(modules, folder.head())
}

/// The modules of a model.
fn known_modules(spec: &ModelSpec) -> Modules {
    let layers = spec.layers().iter();
    let (parts, layers): (Vec<_>, Vec<_>) = layers.partition(|layer| layer.parameter.is_some());
    let layers = layers.into_iter();
    let layers = layers.map(|layer| (&layer.path, ModuleKind::Layer(layer.kind)));
    let parts = parts
        .into_iter()
        .filter_map(|layer| Some((layer.path.as_str(), layer.parameter.as_deref()?)));
    Modules::new(layers, spec.names().head).with_parameters(parts)
}

/// The weight of a layer with all adapters in it, and the largest ‖RᵀR − I‖ (Frobenius) of a block
/// of their rotations.
pub(crate) fn rotated(
    mut weight: Matrix,
    adapters: &[ScaledAdapter],
    layer: &LayerSource,
) -> Result<(Matrix, f64)> {
    let path = layer.path();
    let mut orthogonality_error = 0.0f64;
    let mut changing: Vec<_> = adapters.iter().enumerate().collect();
    changing.retain(|(_, adapter)| adapter.changes(path));
    let is_table = layer.kind() == LayerKind::Embedding;
    for (_, adapter) in &changing {
        adapter.folder.check_base_weight(path, &weight)?;
    }
    let name = format!("{path}.weight");
    if own::replaced(adapters, &name) {
        let mut stored = layer.dense_layout(weight);
        own::replace(&mut stored.values, adapters, &name);
        weight = layer.dense_layout(stored);
    }
    let site = Site::with_weight(path, layer.kind(), &weight);
    let rotations = changing.into_iter().map(|(number, adapter)| {
        let (name, device) = (number.to_string(), Device::flex());
        let folder = &adapter.folder;
        folder.rotation(&site, adapter.strength, &name, &device)
    });
    let rotations = rotations.collect::<Result<Vec<_>>>()?;
    let mut rotations: Vec<_> = Composition::arrange(rotations, |r| r.composition()).collect();
    // The last adapter stands next to the weight; the rows of a table meet the first one first.
    if !is_table {
        rotations.reverse();
    }
    for rotation in rotations {
        orthogonality_error = orthogonality_error.max(rotation.orthogonality_error());
        let rows = to_tensor(weight);
        weight = from_tensor(match is_table {
            true => rotation.forward(rows.into(), Pass::EVALUATION),
            false => rotation.rotate_weight(rows, Pass::EVALUATION),
        });
    }
    Ok((weight, orthogonality_error))
}

/// ‖found − wanted‖ / ‖wanted‖ (Frobenius), 0 if both are 0.
pub(crate) fn relative_error(found: &Matrix, wanted: &Matrix) -> f64 {
    let [off, size] = sums([found, wanted], |[found, wanted]| {
        [f64::from(found - wanted).powi(2), f64::from(wanted).powi(2)]
    });
    if off == 0.0 { 0.0 } else { (off / size).sqrt() }
}

/// The sums of what `terms` makes of the values at each place of matrices of one shape. They do
/// not depend on the number of threads.
pub(crate) fn sums<const N: usize, const M: usize>(
    matrices: [&Matrix; N],
    terms: impl Fn([f32; N]) -> [f64; M] + Sync,
) -> [f64; M] {
    /// Values that one task adds.
    const PIECE: usize = 1 << 14;
    /// Sums that are kept beside each other, so that an addition need not wait for the last one.
    const LANES: usize = 8;
    let length = matrices[0].values.len();
    let piece = |start: usize| {
        let end = length.min(start + PIECE);
        let pieces = matrices.map(|matrix| &matrix.values[start..end]);
        let mut lanes = [[0.0; M]; LANES];
        let chunks = pieces.map(|piece| piece.as_chunks::<LANES>());
        let mut add = |lane: usize, values: [f32; N]| {
            for (sum, term) in lanes[lane].iter_mut().zip(terms(values)) {
                *sum += term;
            }
        };
        for chunk in 0..chunks[0].0.len() {
            for lane in 0..LANES {
                add(lane, chunks.map(|(chunks, _)| chunks[chunk][lane]));
            }
        }
        for rest in 0..chunks[0].1.len() {
            add(0, chunks.map(|(_, values)| values[rest]));
        }
        total(&lanes)
    };
    let starts = (0..length.div_ceil(PIECE)).into_par_iter();
    let pieces: Vec<[f64; M]> = starts.map(|i| piece(i * PIECE)).collect();
    total(&pieces)
}

fn total<const M: usize>(parts: &[[f64; M]]) -> [f64; M] {
    std::array::from_fn(|i| parts.iter().map(|part| part[i]).sum())
}

/// A matrix on Burn's CPU device.
pub(crate) fn to_tensor(matrix: Matrix) -> Tensor<2> {
    let data = TensorData::new(matrix.values, matrix.shape);
    Tensor::from_data(data, &Device::flex())
}

/// The values of a tensor of `f32`.
pub(crate) fn from_tensor(tensor: Tensor<2>) -> Matrix {
    let shape = tensor.dims();
    let values = tensor.into_data().try_into_vec::<f32>();
    Matrix::new(values.expect("f32 in, f32 out"), shape)
}
