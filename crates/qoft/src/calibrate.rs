//! Collecting what the code search of a merge has to know about the inputs of layers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use qoft_calibrate::{CompensateOptions, Compensated, Hessian};
use qoft_core::kernels::FloatFormat;
use qoft_core::{CodeSearch, Error, LayerKind, Matrix, Result, ScratchDir};
use qoft_train::data::{Batch, Dataset, Example};
use qoft_train::{TokenModel, TrainModel};

use crate::inputs::{Collected, Observed};
use crate::search::LayerSearch;

/// Name of the temporary folders.
const FOLDER: &str = "qoft-calibration";
/// Rows of data, and tokens of them together, that the model reads at once.
const ROWS: usize = 8;
const TOKENS: usize = 2048;

/// How calibration data is used.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CalibrationOptions {
    /// Bytes that the Hessians of layers may take while they are summed up, unless a single one
    /// is larger. With less, the model reads the data more often.
    pub memory: usize,
    /// How codes are chosen.
    pub compensate: CompensateOptions,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            compensate: CompensateOptions::default(),
        }
    }
}

/// The inputs that layers have on some data, as Hessians in files of a temporary folder; gives
/// each layer a [`Compensated`] search.
#[derive(Debug)]
pub struct Calibration {
    folder: ScratchDir,
    /// The file and the number of input features of each layer.
    layers: BTreeMap<String, (PathBuf, usize)>,
    /// Factors that inputs of layers were divided by since.
    factors: BTreeMap<String, Vec<f32>>,
    /// Files that were written.
    files: usize,
    options: CompensateOptions,
}

impl Calibration {
    /// Runs `model` on the rows of `examples`, and sums up the inputs of all linear layers whose
    /// paths are `wanted`: those that adapters change. The merged weights see what comes before a
    /// layer's adapters, from layers before it that are adapted: the model must have these adapters.
    ///
    /// The temporary folder is made in `parent`. `device` is that of the model. `progress` is told
    /// how many of how many rows are done; rows count once for each time that they are read.
    ///
    /// # Errors
    /// If there are no tokens or one that the model does not know, or the files cannot be written.
    pub fn collect<M: TrainModel<Data = Dataset> + TokenModel>(
        model: &M,
        examples: &[Example],
        wanted: &dyn Fn(&str) -> bool,
        parent: &Path,
        options: &CalibrationOptions,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut model = model.valid();
        let found = model
            .layers()
            .into_iter()
            .filter(|(path, layer)| layer.kind() == LayerKind::Linear && wanted(path));
        let found: Vec<_> = found
            .map(|(path, layer)| (path, layer.in_features()))
            .collect();
        check(&model, examples, &found)?;
        let groups = groups(found, options.memory);
        let mut calibration = Self {
            folder: ScratchDir::new(parent, FOLDER)?,
            layers: BTreeMap::new(),
            factors: BTreeMap::new(),
            files: 0,
            options: options.compensate,
        };
        let total = groups.len() * examples.len();
        for (number, group) in groups.into_iter().enumerate() {
            let before = number * examples.len();
            let mut done = |rows| progress(before + rows, total);
            calibration.collect_group(&mut model, examples, group, device, &mut done)?;
        }
        Ok(calibration)
    }

    /// Reads all rows once.
    fn collect_group(
        &mut self,
        model: &mut impl TrainModel<Data = Dataset>,
        examples: &[Example],
        group: Vec<(String, usize)>,
        device: &Device,
        done: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let collected = Collected::default();
        let observers: BTreeMap<String, Observed> = group
            .into_iter()
            .map(|(path, width)| (path, collected.observer(width)))
            .collect();
        model.walk_mut("", &mut |path, layer| {
            layer.observe_inputs(observers.get(path).map(Observed::to_arc));
        });
        let wanted = observers.keys().map(String::as_str).collect();
        let mut count = 0;
        for rows in batches(examples) {
            let batch = Batch::new(&rows);
            if batch.seq_len > 0 {
                model.forward_to(&batch, &wanted, device);
            }
            count += rows.len();
            done(count);
        }
        // Layers with the same inputs have one file.
        let first = self.files;
        let numbers: Vec<usize> = observers.values().map(Observed::sum).collect();
        for sum in collected.sums() {
            let file = self.folder.path().join(self.files.to_string());
            write(&sum, &file).map_err(Error::io(&file))?;
            self.files += 1;
        }
        for ((path, observer), number) in observers.into_iter().zip(numbers) {
            let file = self.folder.path().join((first + number).to_string());
            self.layers.insert(path, (file, observer.width()));
        }
        Ok(())
    }

    /// What was summed up for the layer at a module path; `None` for layers that no adapter
    /// changes.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn hessian(&self, layer: &str) -> Result<Option<Hessian>> {
        let Some((path, width)) = self.layers.get(layer) else {
            return Ok(None);
        };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mut lower = vec![0.0; bytes.len() / 4];
        if bytes.len().is_multiple_of(4) {
            FloatFormat::F32.decode(&bytes, &mut lower);
        }
        let hessian = Hessian::from_lower(*width, &lower);
        let hessian = hessian.ok_or_else(|| Error::file(path, "has another length than before"));
        hessian.map(|hessian| match self.factors.get(layer) {
            Some(factors) => Some(hessian.divided(factors)),
            None => Some(hessian),
        })
    }

    /// The inputs of the layer are smaller from now on, each feature by its factor.
    pub(crate) fn divide_inputs(&mut self, layer: &str, factors: &[f32]) {
        self.factors.insert(layer.to_owned(), factors.to_vec());
    }
}

impl LayerSearch for Calibration {
    fn search(&self, layer: &str, before: Option<&Matrix>) -> Result<Box<dyn CodeSearch + '_>> {
        let error = |reason: String| Error::Calibration {
            layer: layer.to_owned(),
            reason,
        };
        let hessian = self.hessian(layer)?;
        let hessian = hessian.ok_or_else(|| error("its inputs were not collected".into()))?;
        let search = Compensated::new(&hessian, &self.options);
        let search = search.map_err(|e| error(e.to_string()))?;
        Ok(match before {
            Some(before) => Box::new(search.keeping(before.clone())),
            None => Box::new(search),
        })
    }

    fn inputs(&self, layer: &str) -> Result<Option<Hessian>> {
        self.hessian(layer)
    }
}

/// Rows in the order of their lengths, those of one length together: nothing is padded.
fn batches(examples: &[Example]) -> Vec<Vec<&Example>> {
    let mut rows: Vec<&Example> = examples.iter().collect();
    let length = |row: &&Example| row.input_ids.len();
    rows.sort_by_key(length);
    let equal = rows.chunk_by(|a, b| length(a) == length(b));
    let parts = equal.flat_map(|rows| {
        let most = TOKENS / length(&rows[0]).max(1);
        rows.chunks(most.clamp(1, ROWS))
    });
    parts.map(<[_]>::to_vec).collect()
}

/// Fails if there is nothing to see, or a token that the model has no embedding for.
fn check(model: &impl TokenModel, examples: &[Example], layers: &[(String, usize)]) -> Result<()> {
    let Some((layer, _)) = layers.first() else {
        return Ok(());
    };
    let error = |reason: String| Error::Calibration {
        layer: layer.clone(),
        reason,
    };
    let mut ids = examples.iter().flat_map(|example| example.input_ids.iter());
    let known = model.vocab_size();
    if ids.clone().next().is_none() {
        return Err(error("the data has no tokens".into()));
    }
    let longest = examples.iter().map(|example| example.input_ids.len()).max();
    if let (Some(tokens), Some(limit)) = (longest, model.longest_sequence())
        && tokens > limit
    {
        return Err(error(format!(
            "the data has a row of {tokens} tokens, but the model has positions for {limit} only"
        )));
    }
    match ids.find(|&&id| id as usize >= known) {
        Some(id) => Err(error(format!(
            "the data has token id {id}, but the model knows {known} ids only"
        ))),
        None => Ok(()),
    }
}

/// Layers in their order, cut where the sum of their Hessians becomes too large.
fn groups(layers: Vec<(String, usize)>, memory: usize) -> Vec<Vec<(String, usize)>> {
    let mut groups: Vec<Vec<_>> = Vec::new();
    let mut used = 0usize;
    for (path, width) in layers {
        let needed = width.saturating_mul(width).saturating_mul(size_of::<f32>());
        used = used.saturating_add(needed);
        match groups.last_mut() {
            Some(group) if used <= memory => group.push((path, width)),
            _ => {
                used = needed;
                groups.push(vec![(path, width)]);
            }
        }
    }
    groups
}

fn write(hessian: &Hessian, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in hessian.lower() {
        file.write_all(&FloatFormat::F32.to_bytes(row))?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fit_the_memory_where_layers_do() {
        let layers = [("a", 2), ("b", 3), ("c", 9), ("d", 1), ("e", 1)];
        let layers = layers.map(|(path, width)| (path.to_owned(), width));
        let names = |memory| -> Vec<String> {
            let groups = groups(layers.to_vec(), memory);
            let name = |group: Vec<(String, usize)>| group.into_iter().map(|(path, _)| path);
            groups.into_iter().map(|g| name(g).collect()).collect()
        };
        assert_eq!(names(usize::MAX), ["abcde"]);
        assert_eq!(names(4 * 13), ["ab", "c", "de"]);
        assert_eq!(names(0), ["a", "b", "c", "d", "e"]);
    }
}
