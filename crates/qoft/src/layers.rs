//! Which modules of a checkpoint are linear layers, and whose.

use std::collections::BTreeSet;

use qoft_core::{ClaimedLayer, Dense, LayerKind, LayerSource, PackedParameter, Result, Schemes};
use qoft_models::{ModelFolder, ModelSpec};

use crate::owners::Owners;

/// What schemes find in a checkpoint.
pub struct ModelLayers<'a> {
    /// All linear layers, in the order of their paths with numbers compared as numbers. Where the
    /// architecture is known, its layers have the sizes that it says.
    ///
    /// Embedding tables are no layers: they are matrices, but nothing is multiplied with them. Those
    /// that are quantized are among them all the same, since more than a plain tensor makes them up.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// Packed parameters that are no layer's, in the order of their names.
    pub packed: Vec<PackedParameter>,
}

impl<'a> ModelLayers<'a> {
    /// Asks the schemes for every module and every tensor that is no plain float.
    ///
    /// # Errors
    /// If a tensor is neither a plain float nor part of a claimed layer or of a packed parameter, or
    /// the parts of one do not fit each other.
    pub fn find(folder: &'a ModelFolder, schemes: &'a Schemes) -> Result<Self> {
        if let Some(error) = folder.refused() {
            tracing::warn!("{error}; which layers there are is judged by the tensors alone");
        }
        let checkpoint = folder.checkpoint();
        let paths = checkpoint.modules().into_iter();
        let claimed = paths.filter_map(|path| schemes.claim(folder.source(path)));
        let mut layers: Vec<ClaimedLayer> = claimed.collect();
        let owners = Owners::new(&layers);
        let mut packed: Vec<PackedParameter> = Vec::new();
        let mut parts = BTreeSet::new();
        for name in checkpoint.names().filter(|name| owners.of(name).is_none()) {
            if checkpoint.tensor(name)?.float_format().is_ok() || parts.contains(name) {
                continue;
            }
            match schemes.parameter(checkpoint, name)? {
                Some(parameter) => {
                    parts.extend(parameter.parts.iter().cloned());
                    packed.push(parameter);
                }
                None if is_foreign(folder, name) => {}
                None => {
                    let path = name.rsplit_once('.').map_or(name, |(path, _)| path);
                    schemes.find(folder.source(path))?;
                }
            }
        }
        let linear = folder.known().into_iter().flat_map(|spec| spec.layers());
        for layer in linear.filter(|l| l.kind == LayerKind::Linear && owners.at(&l.path).is_none())
        {
            // Its tensors may be those of a layer beside it, or missing.
            if checkpoint.under(&layer.path).next().is_some() {
                schemes.find(layer.source(checkpoint))?;
            }
        }
        let is_table = |layer: &ClaimedLayer| layer.source().kind() == LayerKind::Embedding;
        layers.retain(|layer| layer.is_quantized() || !is_table(layer));
        layers.sort_by_cached_key(|layer| natural(layer.path()));
        Ok(Self { layers, packed })
    }
}

/// Fails if the values of a layer cannot be read.
pub fn check_readable<'a, 'b: 'a>(
    layers: impl IntoIterator<Item = &'a ClaimedLayer<'b>>,
) -> Result<()> {
    let mut layers = layers.into_iter();
    match layers.find(|layer| !layer.capabilities().dequantize) {
        None => Ok(()),
        Some(layer) => Err(layer.source().incapable("be made dense")),
    }
}

/// Embedding tables that are plain matrices.
pub fn embeddings(folder: &ModelFolder) -> Vec<LayerSource<'_>> {
    let checkpoint = folder.checkpoint();
    let paths = checkpoint.modules().into_iter();
    let layers = paths.map(|path| folder.source(path));
    let tables = layers.filter(|layer| layer.kind() == LayerKind::Embedding);
    tables.filter(Dense::is_dense).collect()
}

/// Whether a model of a known architecture has no such layer.
pub fn is_foreign_layer(folder: &ModelFolder, layer: &ClaimedLayer) -> bool {
    let known = folder.known();
    known.is_some_and(|spec| spec.layer(layer.path()).is_none())
}

/// Whether it is a layer of an expert whose tensors files always have together with those of others.
pub fn is_together(folder: &ModelFolder, layer: &ClaimedLayer) -> bool {
    let weight = format!("{}.weight", layer.path());
    let known = folder.known();
    known.is_some_and(|spec| spec.in_all_experts(&weight).is_some())
}

/// Whether a model of a known architecture is not made from a tensor.
pub fn is_foreign(folder: &ModelFolder, tensor: &str) -> bool {
    let made = |spec: &ModelSpec| spec.is_made_from(folder.checkpoint(), tensor);
    folder.known().is_some_and(|spec| !made(spec))
}

fn natural(path: &str) -> Vec<(u64, &str)> {
    path.split('.')
        .map(|part| (part.parse().unwrap_or(u64::MAX), part))
        .collect()
}
