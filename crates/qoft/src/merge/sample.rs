//! Merging some layers, to see what a way to merge does to an adapter.

use std::path::{Path, PathBuf};

use qoft_core::{ClaimedLayer, Purpose, Result, Schemes, WaitingFile};
use qoft_models::ModelFolder;

use super::plan::Way;
use super::report::KeptShares;
use super::rewritten::Rewritten;
use super::work::{Reports, Work};
use super::{MergeTarget, adapted};
use crate::adapted::check;
use crate::adapter::ScaledAdapter;
use crate::layers::ModelLayers;

/// Some of the layers that adapters change: quantized ones, or dense ones where none is quantized.
pub struct MergeSample<'a> {
    folder: &'a ModelFolder,
    adapters: &'a [ScaledAdapter],
    /// All linear layers of the model.
    all: Vec<ClaimedLayer<'a>>,
    layers: Vec<ClaimedLayer<'a>>,
    scratch: PathBuf,
}

impl<'a> MergeSample<'a> {
    /// Up to `count` layers, evenly spread over all of them. What is written waits in files without
    /// names in the folder `scratch`.
    ///
    /// # Errors
    /// If a layer is of no known scheme, or an adapter does not fit.
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        adapters: &'a [ScaledAdapter],
        count: usize,
        scratch: &Path,
    ) -> Result<Self> {
        let all = ModelLayers::find(folder, schemes)?.layers;
        check(adapters, folder, &all)?;
        let mut changing = all.clone();
        changing.retain(|layer| adapted(adapters, layer.path()));
        if changing.iter().any(ClaimedLayer::is_quantized) {
            changing.retain(ClaimedLayer::is_quantized);
        }
        let count = count.min(changing.len());
        // From the middle of each of so many stretches.
        let places = (0..count).map(|i| (2 * i + 1) * changing.len() / (2 * count));
        Ok(Self {
            folder,
            adapters,
            all,
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
    pub fn merged<'b>(&'b self, target: MergeTarget<'b>) -> Result<KeptShares> {
        let folder = self.folder;
        match Way::new(folder, self.adapters, &self.all, target)? {
            Way::Dense(format) => self.report(|work, reports| {
                let layer = work.layer.parse()?;
                work.rounded(&layer, format, reports).map(drop)
            }),
            Way::Same(search) => {
                let mut current = folder.checkpoint().clone();
                let mut waiting = WaitingFile::new(&self.scratch)?;
                self.report(|work, reports| {
                    let rotated = work.rotated(search)?;
                    work.requantize(rotated, search, &mut current, &mut waiting, reports)
                })
            }
            Way::New(scheme, plan) => {
                let mut rewritten = Rewritten::new(scheme, &plan, folder, &self.scratch)?;
                self.report(|work, reports| {
                    rewritten.write(work, work.adapted(scheme.search)?, reports)
                })
            }
        }
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
                dense_values: Purpose::Forward,
            };
            each(&work, &reports)?;
        }
        Ok(KeptShares::of(&reports.into_layers()))
    }
}
