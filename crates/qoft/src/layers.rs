//! Which modules of a checkpoint are linear layers, and whose.

use qoft_core::{Checkpoint, Dense, LayerSource, QuantBackend, Registry, Result};
use qoft_models::ModelConfig;

/// A linear layer and the backend that claims it.
pub struct Claimed<'a> {
    /// Module path.
    pub path: &'a str,
    /// The backend.
    pub backend: &'static dyn QuantBackend,
}

impl Claimed<'_> {
    /// Whether it is not dense.
    pub fn is_quantized(&self) -> bool {
        self.backend.name() != Dense.name()
    }
}

/// All linear layers, in the order of their paths with numbers compared as numbers.
///
/// Embedding tables are no layers: they are matrices, but nothing is multiplied with them.
///
/// # Errors
/// If a tensor is neither a plain float nor part of a claimed layer.
pub fn claimed<'a>(checkpoint: &'a Checkpoint, registry: &Registry) -> Result<Vec<Claimed<'a>>> {
    let mut found: Vec<Claimed> = Vec::new();
    for path in checkpoint.modules() {
        let layer = LayerSource::new(checkpoint, path);
        if let Some(backend) = registry.backends().find(|b| b.claim(&layer)) {
            found.push(Claimed { path, backend });
        }
    }
    for name in checkpoint.names() {
        let owned = found.iter().any(|c| is_under(name, c.path));
        if !owned && checkpoint.tensor(name)?.float_format().is_err() {
            let path = name.rsplit_once('.').map_or(name, |(path, _)| path);
            registry.find(&LayerSource::new(checkpoint, path))?;
        }
    }
    found.retain(|c| !is_embedding(c.path));
    found.sort_by_key(|c| natural(c.path));
    Ok(found)
}

/// Paths of the embedding tables that are plain matrices.
pub fn embeddings(checkpoint: &Checkpoint) -> Vec<&str> {
    let mut paths: Vec<&str> = checkpoint.modules().into_iter().collect();
    paths.retain(|path| is_embedding(path) && Dense.claim(&LayerSource::new(checkpoint, path)));
    paths
}

/// Whether the output head is the embedding table.
pub fn is_tied(checkpoint: &Checkpoint) -> bool {
    let config = checkpoint.config();
    let stated = config["tie_word_embeddings"].as_bool().unwrap_or(false);
    ModelConfig::parse(config).map_or(stated, |config| config.tie_word_embeddings)
}

/// Whether a tensor belongs to the module at `path`.
pub fn is_under(name: &str, path: &str) -> bool {
    name.strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn is_embedding(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    matches!(name, "embed_tokens" | "wte" | "wpe" | "word_embeddings")
}

fn natural(path: &str) -> Vec<(u64, &str)> {
    path.split('.')
        .map(|part| (part.parse().unwrap_or(u64::MAX), part))
        .collect()
}
