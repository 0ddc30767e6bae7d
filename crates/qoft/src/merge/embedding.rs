//! Embedding tables whose adapters are merged, and the output heads that were tied to them.

use qoft_core::{Checkpoint, Dense, LayerSource, LoadOptions, Result};
use qoft_models::CausalLm;
use serde_json::Value;
use tracing::warn;

use super::{MergeTarget, Reports, Work, adapted, kept};
use crate::adapted::{MergeAdapter, is_tied};
use crate::layers::embeddings;
use crate::write::Output;

/// The tables of a checkpoint that adapters change.
pub(super) struct Tables<'a> {
    checkpoint: &'a Checkpoint,
    paths: Vec<&'a str>,
    /// The table that was the output head too. The head keeps the old one, as it does beside an
    /// adapter that is not merged.
    untied: Option<&'a str>,
}

impl<'a> Tables<'a> {
    pub fn new(checkpoint: &'a Checkpoint, adapters: &[MergeAdapter]) -> Self {
        let mut paths = embeddings(checkpoint);
        paths.retain(|path| adapted(adapters, path));
        let mut tables = paths.iter().copied();
        let of_tokens = tables.find(|path| !path.ends_with("wpe"));
        Self {
            checkpoint,
            untied: of_tokens.filter(|_| is_tied(checkpoint)),
            paths,
        }
    }

    /// Whether a tensor of this name is written here, and not as it was.
    pub fn replace(&self, name: &str) -> bool {
        let weight = name.strip_suffix(".weight");
        let head = |path| self.untied.is_some() && path == CausalLm::HEAD;
        weight.is_some_and(|path| self.paths.contains(&path) || head(path))
    }

    /// The rotated tables, numbered from `first` on in the report, and the head that was one.
    pub fn outputs(
        &self,
        first: usize,
        options: &'a LoadOptions,
        adapters: &'a [MergeAdapter],
        target: MergeTarget,
        reports: &'a Reports,
    ) -> Result<Vec<Output<'a>>> {
        let mut outputs = Vec::new();
        for (number, &path) in self.paths.iter().enumerate() {
            let source = LayerSource::new(self.checkpoint, path);
            let format = match target {
                MergeTarget::Dense(format) => format,
                MergeTarget::SameScheme(_) => source.tensor("weight")?.float_format()?,
            };
            let work = Work {
                index: first + number,
                source,
                backend: &Dense,
                options,
                adapters,
            };
            outputs.extend(work.dense(format, reports)?);
        }
        if let Some(table) = self.untied {
            let head = format!("{}.weight", CausalLm::HEAD);
            warn!(
                "`{table}` was the output head too, and its adapter does not change the head: the \
                 head is written as `{head}`, and config.json says that it is no longer tied"
            );
            outputs.push(Output {
                name: head,
                ..kept(self.checkpoint, &format!("{table}.weight"), target)?
            });
        }
        Ok(outputs)
    }

    /// Says in `config.json` that a head is no longer tied.
    pub fn configure(&self, config: &mut Value) {
        if self.untied.is_some() {
            config["tie_word_embeddings"] = false.into();
        }
    }
}
