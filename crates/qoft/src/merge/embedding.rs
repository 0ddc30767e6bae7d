//! Embedding tables that adapters rotate, and output heads that are no longer the table.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    ClaimedLayer, LayerSource, NewTensor, PackedWeight, Purpose, Result, Schemes, WaitingFile,
};
use qoft_models::ModelFolder;
use rayon::prelude::*;
use serde_json::Value;
use tracing::warn;

use super::adapted;
use super::work::{Reports, Work};
use crate::adapter::ScaledAdapter;
use crate::layers::embeddings;
use crate::model_dtype::stated;
use crate::own;
use crate::write::Output;

/// How the tables of a merged checkpoint are written.
#[derive(Clone, Copy)]
pub(super) struct TablesAs<'a> {
    /// The format of all that is dense; as it was if there is none.
    pub format: Option<FloatFormat>,
    /// Where files without names wait, if layers stay in their schemes.
    pub in_scheme: Option<&'a Path>,
}

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
            let rotated = folder
                .token_table()
                .is_some_and(|path| adapted(adapters, &path));
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
        how: TablesAs,
        reports: &'a Reports,
    ) -> Result<Vec<Output<'a>>> {
        let mut outputs = Vec::new();
        for (number, &source) in self.tables.iter().enumerate() {
            let layer = self.schemes.find(source)?;
            let stored = || source.tensor("weight")?.float_format();
            let format = how.format.map_or_else(stored, Ok)?;
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
            match self.quantized() {
                Some(table) => outputs.extend(self.quantized_head(table, how, reports)?),
                None => outputs.push(own::named(checkpoint, adapters, &head, table, how.format)?),
            }
        }
        Ok(outputs)
    }

    /// The table of the tokens, where it is quantized.
    fn quantized(&self) -> Option<ClaimedLayer<'a>> {
        let checkpoint = self.folder.checkpoint();
        let path = self.folder.token_table()?;
        // As the checkpoint spells it, which lives as long as it does.
        let name = checkpoint.under(&path).next()?;
        let table = self
            .schemes
            .claim(self.folder.source(&name[..path.len()]))?;
        table.is_quantized().then_some(table)
    }

    /// The head that was a quantized table, as that was: in its scheme, if that reads the table's tensors
    /// under the names of the head as well, and dense if not.
    fn quantized_head(
        &self,
        table: ClaimedLayer<'a>,
        how: TablesAs,
        reports: &'a Reports,
    ) -> Result<Vec<Output<'a>>> {
        let (checkpoint, head) = (self.folder.checkpoint(), self.folder.head());
        let (path, tensors) = (table.path(), table.source().suffixes());
        if let Some(scratch) = how.in_scheme
            && self.is_read_as_head(&table, scratch)?
        {
            let tensors = tensors.map(|suffix| {
                Ok(Output {
                    name: format!("{head}.{suffix}"),
                    ..Output::copy(checkpoint.tensor(&format!("{path}.{suffix}"))?)
                })
            });
            return tensors.collect();
        }
        let stated = || stated(checkpoint.config()).unwrap_or(FloatFormat::F32);
        let work = Work {
            index: 0,
            layer: table,
            adapters: &[],
            dense_values: Purpose::Forward,
        };
        let mut outputs = work.dense(how.format.unwrap_or_else(stated), reports)?;
        for output in &mut outputs {
            output.name = output.name.replacen(path, head, 1);
        }
        Ok(outputs)
    }

    /// Whether a scheme finds the table's weight in its tensors under the names of the head.
    fn is_read_as_head(&self, table: &ClaimedLayer, scratch: &Path) -> Result<bool> {
        let (mut checkpoint, head) = (self.folder.checkpoint().clone(), self.folder.head());
        let source = table.source();
        let tensors = source.suffixes().map(|suffix| {
            let tensor = source.tensor(suffix)?;
            let bytes = tensor.bytes().to_vec();
            Ok(NewTensor::new(
                head,
                suffix,
                tensor.dtype(),
                tensor.shape(),
                bytes,
            ))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        checkpoint.insert(&tensors, &mut WaitingFile::new(scratch)?)?;
        let claimed = self
            .schemes
            .claim(LayerSource::new(&checkpoint, head, None));
        // Settings or files may say of the table alone how it is read.
        let Some(Ok(found)) = claimed.map(|layer| layer.load(Purpose::Forward)) else {
            return Ok(false);
        };
        let expected = table.load(Purpose::Forward)?.weight;
        Ok(are_equal(&*found.weight, &*expected))
    }

    /// Says in `config.json` that a head is no longer tied.
    pub fn configure(&self, config: &mut Value) {
        if self.untied.is_some() {
            config["tie_word_embeddings"] = false.into();
        }
    }
}

/// Whether two weights have the same values. A table can be large, so this goes row by row.
fn are_equal(a: &dyn PackedWeight, b: &dyn PackedWeight) -> bool {
    let [rows, columns] = a.shape();
    let same = |row| {
        let values = |weight: &dyn PackedWeight| {
            let mut values = vec![0.0; columns];
            weight.decode_tile(row..row + 1, 0..columns, &mut values);
            values
        };
        values(a) == values(b)
    };
    b.shape() == [rows, columns] && (0..rows).into_par_iter().all(same)
}
