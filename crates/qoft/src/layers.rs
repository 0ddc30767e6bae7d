//! Which modules of a checkpoint are linear layers, and whose.

use qoft_core::{ClaimedLayer, Dense, LayerKind, LayerSource, Result, Schemes};
use qoft_models::{LayerSpec, ModelFolder, ModelNames};

use crate::owners::Owners;

/// All linear layers, in the order of their paths with numbers compared as numbers. Where the
/// architecture is known, its layers have the sizes that it says.
///
/// Embedding tables are no layers: they are matrices, but nothing is multiplied with them. Those that
/// are quantized are among them all the same, since more than a plain tensor makes them up.
///
/// # Errors
/// If a tensor is neither a plain float nor part of a claimed layer.
pub fn claimed<'a>(folder: &'a ModelFolder, schemes: &'a Schemes) -> Result<Vec<ClaimedLayer<'a>>> {
    if let Some(error) = folder.refused() {
        tracing::warn!("{error}; which layers there are is judged by the tensors alone");
    }
    let checkpoint = folder.checkpoint();
    let paths = checkpoint.modules().into_iter();
    let found = paths.filter_map(|path| schemes.claim(source(folder, path)));
    let mut found: Vec<ClaimedLayer> = found.collect();
    let owners = Owners::new(&found);
    for name in checkpoint.names() {
        if owners.of(name).is_none() && checkpoint.tensor(name)?.float_format().is_err() {
            let path = name.rsplit_once('.').map_or(name, |(path, _)| path);
            schemes.find(source(folder, path))?;
        }
    }
    found.retain(|layer| layer.is_quantized() || !is_embedding(folder, layer.path()));
    found.sort_by_cached_key(|layer| natural(layer.path()));
    Ok(found)
}

/// Embedding tables that are plain matrices.
pub fn embeddings(folder: &ModelFolder) -> Vec<LayerSource<'_>> {
    let checkpoint = folder.checkpoint();
    let paths = checkpoint.modules().into_iter();
    let tables = paths.filter(|path| is_embedding(folder, path));
    let tables = tables.map(|path| source(folder, path));
    tables.filter(Dense::is_dense).collect()
}

/// The embedding table of the tokens.
pub fn token_table(folder: &ModelFolder) -> Option<String> {
    let mut tables = embeddings(folder).into_iter().map(|table| table.path());
    match folder.known() {
        Some(spec) => Some(spec.names().token_table()),
        None => tables.find(|path| !path.ends_with("wpe")).map(Into::into),
    }
}

/// Module path of the output head.
pub fn head(folder: &ModelFolder) -> &'static str {
    let known = folder.known();
    known.map_or(ModelNames::USUAL.head, |spec| spec.names().head)
}

/// Whether the output head is the embedding table.
pub fn is_tied(folder: &ModelFolder) -> bool {
    let stated = || folder.checkpoint().config()["tie_word_embeddings"].as_bool();
    match folder.known() {
        Some(spec) => spec.config().tie_word_embeddings,
        None => stated().unwrap_or(false),
    }
}

/// Whether a tensor belongs to the module at `path`.
pub fn is_under(name: &str, path: &str) -> bool {
    name.strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// What is known of the layer at `path`.
fn layer<'a>(folder: &'a ModelFolder, path: &str) -> Option<&'a LayerSpec> {
    folder.known()?.layer(path)
}

/// The tensors of a layer, and what the model's architecture says of it.
pub fn source<'a>(folder: &'a ModelFolder, path: &'a str) -> LayerSource<'a> {
    match layer(folder, path) {
        Some(spec) => spec.source(folder.checkpoint()),
        None => LayerSource::new(folder.checkpoint(), path, None),
    }
}

/// Whether a module is an embedding table. What no architecture says is told by its name.
pub fn is_embedding(folder: &ModelFolder, path: &str) -> bool {
    if let Some(spec) = layer(folder, path) {
        return spec.kind == LayerKind::Embedding;
    }
    let name = path.rsplit('.').next().unwrap_or(path);
    matches!(name, "embed_tokens" | "wte" | "wpe" | "word_embeddings")
}

fn natural(path: &str) -> Vec<(u64, &str)> {
    path.split('.')
        .map(|part| (part.parse().unwrap_or(u64::MAX), part))
        .collect()
}
