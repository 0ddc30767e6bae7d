//! What is told of the layers in a model's files: by its architecture or, where nobody knows that, by
//! the rules that stand here.

use qoft_core::{Dense, LayerKind, LayerSource};

use crate::config::ModelNames;
use crate::layer_spec::LayerSpec;

use super::ModelFolder;

/// What models call the tables of their tokens: last components of module paths.
const TOKEN_TABLES: &[&str] = &[ModelNames::USUAL.tokens, "wte", "word_embeddings"];
/// What they call tables of something else.
const OTHER_TABLES: &[&str] = &["wpe"];

impl ModelFolder {
    /// The kind of the layer at a path. Of those that no architecture knows, a module with the name of
    /// a table is one, and all others with a matrix are linear layers.
    pub fn kind(&self, path: &str) -> LayerKind {
        match self.layer(path) {
            Some(layer) => layer.kind,
            None if is_called(path, TOKEN_TABLES) => LayerKind::Embedding,
            None if is_called(path, OTHER_TABLES) => LayerKind::Embedding,
            None => LayerKind::Linear,
        }
    }

    /// The tensors of the layer at a path, with what is told of it. Of a layer that no architecture
    /// knows no sizes are expected, and a dense weight is `[out_features, in_features]`.
    pub fn source<'a>(&'a self, path: &'a str) -> LayerSource<'a> {
        match self.layer(path) {
            Some(layer) => layer.source(&self.checkpoint),
            None => LayerSource::new(&self.checkpoint, path, None).of_kind(self.kind(path)),
        }
    }

    /// Module path of the table of the tokens: that of the architecture, or the first module that is
    /// called as such tables are and has floats.
    pub fn token_table(&self) -> Option<String> {
        match self.known() {
            Some(spec) => Some(spec.names().token_table()),
            None => {
                let paths = self.checkpoint.modules().into_iter();
                let tables = paths.filter(|path| is_called(path, TOKEN_TABLES));
                let mut tables = tables.map(|path| self.source(path)).filter(Dense::is_dense);
                tables.next().map(|table| table.path().to_owned())
            }
        }
    }

    /// What the architecture says of the layer at a path.
    fn layer(&self, path: &str) -> Option<&LayerSpec> {
        self.known()?.layer(path)
    }

    /// Module path of the output head: that of the architecture, or the usual one.
    pub fn head(&self) -> &'static str {
        let known = self.known();
        known.map_or(ModelNames::USUAL.head, |spec| spec.names().head)
    }

    /// Whether the output head is the table of the tokens.
    pub fn is_tied(&self) -> bool {
        let stated = || self.checkpoint.config()["tie_word_embeddings"].as_bool();
        match self.known() {
            Some(spec) => spec.config().tie_word_embeddings,
            None => stated().unwrap_or(false),
        }
    }
}

/// Whether the last component of a module path is one of these names.
fn is_called(path: &str, names: &[&str]) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    names.contains(&name)
}
