//! Embedding tables that adapters rotate, and output heads that are no longer the table.

use qoft_core::kernels::FloatFormat;
use qoft_core::{LayerSource, Purpose, Result, Schemes};
use qoft_models::ModelFolder;
use serde_json::Value;
use tracing::warn;

use super::adapted;
use super::work::{Reports, Work};
use crate::adapter::ScaledAdapter;
use crate::layers::{embeddings, is_under};
use crate::own;
use crate::write::Output;

/// The tables of a checkpoint that adapters rotate.
pub(super) struct Tables<'a> {
    folder: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &'a [ScaledAdapter],
    tables: Vec<LayerSource<'a>>,
    /// The table that was the output head too, of which only one of the two changes, or both in
    /// different ways. A head that no adapter has keeps the old table, as it does beside an
    /// adapter that is not merged.
    untied: Option<String>,
}

impl<'a> Tables<'a> {
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        adapters: &'a [ScaledAdapter],
    ) -> Self {
        let mut tables = embeddings(folder);
        tables.retain(|table| adapted(adapters, table.path()));
        let untied = own::tied_table(folder).filter(|table| {
            let own = [table, &own::head(folder)].map(|name| own::replaced(adapters, name));
            let rotated = tables.iter().any(|found| is_under(table, found.path()));
            rotated || own.contains(&true)
        });
        Self {
            folder,
            schemes,
            adapters,
            tables,
            untied,
        }
    }

    /// Whether a tensor of this name is written here, and not as it was.
    pub fn replace(&self, name: &str) -> bool {
        let weight = name.strip_suffix(".weight");
        let head = |path| self.untied.is_some() && path == self.folder.head();
        let rotated = |path| self.tables.iter().any(|table| table.path() == path);
        weight.is_some_and(|path| rotated(path) || head(path))
    }

    /// The rotated tables, numbered from `first` on in the report, and the head that was one, in a
    /// format or in that which they had.
    pub fn outputs(
        &self,
        first: usize,
        format: Option<FloatFormat>,
        reports: &'a Reports,
    ) -> Result<Vec<Output<'a>>> {
        let mut outputs = Vec::new();
        for (number, &source) in self.tables.iter().enumerate() {
            let layer = self.schemes.find(source)?;
            let stored = || source.tensor("weight")?.float_format();
            let format = format.map_or_else(stored, Ok)?;
            let work = Work {
                index: first + number,
                layer,
                adapters: self.adapters,
                dense_values: Purpose::Forward,
            };
            outputs.extend(work.dense(format, reports)?);
        }
        if let Some(table) = &self.untied {
            let head = own::head(self.folder);
            warn!(
                "`{table}` was the output head too, and adapters change only one of them or both \
                 in different ways: the head is written as `{head}`, and config.json says that it \
                 is no longer tied"
            );
            let (checkpoint, adapters) = (self.folder.checkpoint(), self.adapters);
            outputs.push(own::named(checkpoint, adapters, &head, table, format)?);
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
