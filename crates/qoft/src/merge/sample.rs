//! Merging some layers, to see what a way to merge does to an adapter.

use std::path::{Path, PathBuf};

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    BackendOptions, Checkpoint, ClaimedLayer, LayerSource, Matrix, Nearest, Purpose, Quantization,
    QuantizedModel, Registry, Result, Schemes, WaitingFile,
};
use qoft_models::ModelFolder;

use super::report::KeptShares;
use super::search::LayerSearch;
use super::work::{Reports, Work};
use super::{MergeTarget, adapted, checked};
use crate::adapter::ScaledAdapter;
use crate::layers::claimed;

/// Some of the quantized layers that adapters change.
pub struct MergeSample<'a> {
    folder: &'a ModelFolder,
    schemes: &'a Schemes,
    adapters: &'a [ScaledAdapter],
    layers: Vec<ClaimedLayer<'a>>,
    scratch: PathBuf,
}

impl<'a> MergeSample<'a> {
    /// Up to `count` layers, evenly spread over all of them. What is written waits in files without
    /// names in the folder `scratch`.
    ///
    /// # Errors
    /// If a layer is of no known scheme.
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        adapters: &'a [ScaledAdapter],
        count: usize,
        scratch: &Path,
    ) -> Result<Self> {
        let mut changing = claimed(folder, schemes)?;
        changing.retain(|layer| layer.is_quantized() && adapted(adapters, layer.path()));
        let count = count.min(changing.len());
        // From the middle of each of so many stretches.
        let places = (0..count).map(|i| (2 * i + 1) * changing.len() / (2 * count));
        Ok(Self {
            folder,
            schemes,
            adapters,
            layers: places.map(|place| changing[place]).collect(),
            scratch: scratch.to_owned(),
        })
    }

    /// Module paths of the layers.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(ClaimedLayer::path)
    }

    /// The backends that claim them, with repetitions.
    pub fn backends(&self) -> impl Iterator<Item = &'static str> {
        self.layers.iter().map(ClaimedLayer::backend)
    }

    /// What is kept if they are merged as [`merge`](super::merge) does it.
    ///
    /// # Errors
    /// Those of [`merge`](super::merge), but that too little is kept.
    pub fn merged(&self, target: MergeTarget) -> Result<KeptShares> {
        checked(self.folder, self.schemes, self.adapters, target)?;
        let mut current = self.folder.checkpoint().clone();
        let mut waiting = WaitingFile::new(&self.scratch)?;
        self.report(|work, reports| match target {
            MergeTarget::Dense(format) => {
                let layer = work.layer.parse()?;
                work.rounded(&layer, format, reports).map(drop)
            }
            MergeTarget::SameScheme(search) => {
                let rotated = work.rotated(search)?;
                work.requantize(rotated, search, &mut current, &mut waiting, reports)
            }
        })
    }

    /// What is kept if they are merged into dense weights, and those quantized anew. `inputs` knows
    /// the inputs of the layers.
    ///
    /// # Errors
    /// If a layer is damaged, or does not fit the settings.
    pub fn quantized(
        &self,
        registry: &Registry,
        quantization: &Quantization,
        inputs: &dyn LayerSearch,
    ) -> Result<KeptShares> {
        let model = QuantizedModel::new(FloatFormat::F32, quantization.skips(), &[]);
        let checkpoint = self.folder.checkpoint().clone();
        let mut current = checkpoint.with_quantization_config(quantization.config(&model));
        let mut waiting = WaitingFile::new(&self.scratch)?;
        self.report(|work, reports| {
            let (layer, rotated) = work.rotated(inputs)?;
            let (path, weight) = (layer.path(), rotated.weight.clone());
            let tensors = quantization.quantize(path, weight, FloatFormat::F32, &Nearest)?;
            current.replace(path, &tensors, &mut waiting)?;
            let written = read(registry, &current, path, layer.shape())?;
            work.report(reports, &rotated, &written, false);
            Ok(())
        })
    }

    /// Does something with each layer, and sums up what it reports.
    fn report(
        &self,
        mut each: impl FnMut(&Work<'a>, &Reports) -> Result<()>,
    ) -> Result<KeptShares> {
        let reports = Reports::default();
        for (index, &layer) in self.layers.iter().enumerate() {
            let work = Work {
                index,
                layer,
                adapters: self.adapters,
            };
            each(&work, &reports)?;
        }
        Ok(KeptShares::of(&reports.into_layers()))
    }
}

/// The weight of a layer that another scheme has quantized.
fn read(
    registry: &Registry,
    checkpoint: &Checkpoint,
    path: &str,
    shape: [usize; 2],
) -> Result<Matrix> {
    let schemes = registry.open(checkpoint, &BackendOptions::default())?;
    let source = LayerSource::new(checkpoint, path, Some(shape));
    Ok(Matrix::decode(
        &*schemes.load(source, Purpose::Forward)?.weight,
    ))
}
