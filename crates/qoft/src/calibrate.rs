//! Collecting what the code search of a merge has to know about the inputs of layers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use qoft_calibrate::{CompensateOptions, Compensated, Hessian};
use qoft_core::kernels::FloatFormat;
use qoft_core::{CodeSearch, Error, InputObserver, LayerKind, Result, ScratchDir};
use qoft_train::data::{Batch, Dataset, Example};
use qoft_train::{TokenModel, TrainModel};

use crate::adapter::ScaledAdapter;
use crate::merge::LayerSearch;

/// Name of the temporary folders.
const FOLDER: &str = "qoft-calibration";

/// How calibration data is used.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    options: CompensateOptions,
}

impl Calibration {
    /// Runs `model` on the rows of `examples`, each alone, and sums up the inputs of all linear
    /// layers that one of `adapters` changes. The merged weights see what comes before a layer's
    /// adapters, from layers before it that are adapted: the model must have these adapters.
    ///
    /// The temporary folder is made in `parent`. `device` is that of the model. `progress` is told
    /// how many of how many rows are done; rows count once for each time that they are read.
    ///
    /// # Errors
    /// If there are no tokens or one that the model does not know, or the files cannot be written.
    pub fn collect<M: TrainModel<Data = Dataset> + TokenModel>(
        model: &M,
        examples: &[Example],
        adapters: &[ScaledAdapter],
        parent: &Path,
        options: &CalibrationOptions,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut model = model.valid();
        let found = model.layers().into_iter().filter(|(path, layer)| {
            let changed = adapters.iter().any(|adapter| adapter.changes(path));
            layer.kind() == LayerKind::Linear && changed
        });
        let found: Vec<_> = found
            .map(|(path, layer)| (path, layer.in_features()))
            .collect();
        check(&model, examples, &found)?;
        let groups = groups(found, options.memory);
        let mut calibration = Self {
            folder: ScratchDir::new(parent, FOLDER)?,
            layers: BTreeMap::new(),
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
        let sums: BTreeMap<String, Arc<Sum>> = group
            .into_iter()
            .map(|(path, width)| (path, Arc::new(Sum(Mutex::new(Hessian::new(width))))))
            .collect();
        model.walk_mut("", &mut |path, layer| {
            let sum = sums.get(path).cloned();
            layer.observe_inputs(sum.map(|sum| sum as Arc<dyn InputObserver>));
        });
        let wanted = sums.keys().map(String::as_str).collect();
        for (index, example) in examples.iter().enumerate() {
            let batch = Batch::new(&[example]);
            if batch.seq_len > 0 {
                model.forward_to(&batch, &wanted, device);
            }
            done(index + 1);
        }
        for (path, sum) in sums {
            let sum = sum.0.lock().unwrap_or_else(PoisonError::into_inner);
            let file = self.folder.path().join(self.layers.len().to_string());
            write(&sum, &file).map_err(Error::io(&file))?;
            self.layers.insert(path, (file, sum.width()));
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
        hessian.map(Some)
    }
}

impl LayerSearch for Calibration {
    fn search(&self, layer: &str) -> Result<Box<dyn CodeSearch + '_>> {
        let error = |reason: String| Error::Calibration {
            layer: layer.to_owned(),
            reason,
        };
        let hessian = self.hessian(layer)?;
        let hessian = hessian.ok_or_else(|| error("its inputs were not collected".into()))?;
        let search = Compensated::new(&hessian, &self.options);
        let search = search.map_err(|e| error(e.to_string()))?;
        Ok(Box::new(search))
    }
}

/// Sums up what it sees.
#[derive(Debug)]
struct Sum(Mutex<Hessian>);

impl InputObserver for Sum {
    fn observe(&self, rows: &Tensor<2>) {
        let values: Vec<f32> = rows.to_data().iter().collect();
        let mut hessian = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hessian.add(&values);
    }
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
    let mut ids = examples.iter().flat_map(|example| &example.input_ids);
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
