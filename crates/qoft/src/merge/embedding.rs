//! Embedding tables that adapters rotate, and output heads that are no longer the table.

use qoft_core::{Checkpoint, Dense, LayerSource, LoadOptions, Result};
use serde_json::Value;
use tracing::warn;

use super::work::{Reports, Work};
use super::{MergeTarget, adapted};
use crate::adapter::MergeAdapter;
use crate::layers::{embeddings, is_under};
use crate::own;
use crate::write::Output;
use qoft_models::CausalLm;

/// The tables of a checkpoint that adapters rotate.
pub(super) struct Tables<'a> {
    checkpoint: &'a Checkpoint,
    adapters: &'a [MergeAdapter],
    paths: Vec<&'a str>,
    /// The table that was the output head too, of which only one of the two changes, or both in
    /// different ways. A head that no adapter has keeps the old table, as it does beside an
    /// adapter that is not merged.
    untied: Option<String>,
}

impl<'a> Tables<'a> {
    pub fn new(checkpoint: &'a Checkpoint, adapters: &'a [MergeAdapter]) -> Self {
        let mut paths = embeddings(checkpoint);
        paths.retain(|path| adapted(adapters, path));
        let untied = own::tied_table(checkpoint).filter(|table| {
            let own = [table, &own::head()].map(|name| own::replaced(adapters, name));
            own.contains(&true) || paths.iter().any(|path| is_under(table, path))
        });
        Self {
            checkpoint,
            adapters,
            paths,
            untied,
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
                adapters: self.adapters,
            };
            outputs.extend(work.dense(format, reports)?);
        }
        if let Some(table) = &self.untied {
            let head = own::head();
            warn!(
                "`{table}` was the output head too, and adapters change only one of them or both \
                 in different ways: the head is written as `{head}`, and config.json says that it \
                 is no longer tied"
            );
            let (checkpoint, adapters) = (self.checkpoint, self.adapters);
            outputs.push(own::named(
                checkpoint,
                adapters,
                &head,
                table,
                target.dense_format(),
            )?);
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
