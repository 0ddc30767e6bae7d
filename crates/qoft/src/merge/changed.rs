//! The layers that a merge writes anew.

use std::collections::BTreeSet;
use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{Checkpoint, ClaimedLayer, Purpose, Result, WaitingFile};
use qoft_models::ModelFolder;
use serde_json::Value;

use super::config::dense_config;
use super::plan::Way;
use super::rewritten::Rewritten;
use super::work::{Reports, Work};
use super::{NewScheme, adapted};
use crate::adapter::ScaledAdapter;
use crate::ahead::one_ahead;
use crate::quantize::Plan;
use crate::search::LayerSearch;
use crate::write::Output;

/// What is merged, and where.
pub(super) struct Merging<'a> {
    pub folder: &'a ModelFolder,
    pub adapters: &'a [ScaledAdapter],
    /// Which values dense weights have.
    pub dense_values: Purpose,
    /// All linear layers.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// Where files without names wait.
    pub scratch: &'a Path,
    pub reports: &'a Reports,
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// Layers that are written anew.
pub(super) struct Changed<'a> {
    /// In the order of their numbers.
    pub layers: Vec<ClaimedLayer<'a>>,
    /// Paths of those that are dense now.
    pub dense: BTreeSet<&'a str>,
    /// Their tensors.
    pub outputs: Vec<Output<'a>>,
    /// The checkpoint with those that are quantized.
    pub current: Checkpoint,
    /// How many these are.
    pub quantized: usize,
    /// The format of everything that is dense; as it was if there is none.
    pub format: Option<FloatFormat>,
    /// The new `config.json`.
    pub config: Value,
}

impl<'a> Merging<'a> {
    /// Writes layers as the plan says. Dense ones are only made when their files are.
    pub fn change(self, way: Way<'a>) -> Result<Changed<'a>> {
        match way {
            Way::Dense(format) => self.into_dense(format),
            Way::Same(search) => self.into_same(search),
            Way::New(scheme, plan) => self.into_new(scheme, plan),
        }
    }

    fn adapted(&self, layer: &ClaimedLayer) -> bool {
        adapted(self.adapters, layer.path())
    }

    fn work(&self, index: usize, layer: ClaimedLayer<'a>) -> Work<'a> {
        Work {
            index,
            layer,
            adapters: self.adapters,
            dense_values: self.dense_values,
        }
    }

    fn into_dense(mut self, format: FloatFormat) -> Result<Changed<'a>> {
        let mut layers = std::mem::take(&mut self.layers);
        layers.retain(|layer| layer.is_quantized() || self.adapted(layer));
        let checkpoint = self.folder.checkpoint();
        let config = dense_config(checkpoint.config(), format);
        let mut changed = Changed::none(checkpoint, Some(format), config);
        for (index, &layer) in layers.iter().enumerate() {
            changed.add_dense(self.work(index, layer), format, self.reports)?;
        }
        Ok(Changed { layers, ..changed })
    }

    fn into_same(mut self, search: &dyn LayerSearch) -> Result<Changed<'a>> {
        let mut layers = std::mem::take(&mut self.layers);
        layers.retain(|layer| self.adapted(layer));
        let checkpoint = self.folder.checkpoint();
        let config = checkpoint.config().clone();
        let mut changed = Changed::none(checkpoint, None, config);
        let mut quantized = Vec::new();
        for (index, &layer) in layers.iter().enumerate() {
            let work = self.work(index, layer);
            if layer.is_quantized() {
                quantized.push(work);
                continue;
            }
            let format = layer.source().tensor("weight")?.float_format()?;
            changed.add_dense(work, format, self.reports)?;
        }
        // In a file, so that memory only holds those in work.
        let mut waiting = WaitingFile::new(self.scratch)?;
        let total = quantized.len() + checkpoint.names().count();
        let rotate = |work: &Work| work.rotated(search);
        one_ahead(&quantized, rotate, |work, rotated| {
            let current = &mut changed.current;
            work.requantize(rotated, search, current, &mut waiting, self.reports)?;
            changed.quantized += 1;
            (self.progress)(changed.quantized, total);
            Ok(())
        })?;
        Ok(Changed { layers, ..changed })
    }

    fn into_new(self, scheme: NewScheme, plan: Plan<'a>) -> Result<Changed<'a>> {
        let mut rewritten = Rewritten::new(scheme, &plan, self.folder, self.scratch)?;
        let works = plan.layers.iter().enumerate();
        let works: Vec<Work> = works
            .map(|(index, &layer)| self.work(index, layer))
            .collect();
        let total = works.len() + self.folder.checkpoint().names().count();
        let (mut outputs, mut done) = (Vec::new(), 0);
        let rotate = |work: &Work<'a>| {
            let bias = work.gathered_bias(plan.format)?;
            Ok((bias, work.adapted(scheme.search)?))
        };
        one_ahead(&works, rotate, |work, (bias, rotated)| {
            outputs.extend(bias);
            rewritten.write(work, rotated, self.reports)?;
            self.folder.checkpoint().release();
            done += 1;
            (self.progress)(done, total);
            Ok(())
        })?;
        let mut changed = Changed {
            dense: BTreeSet::new(),
            outputs,
            config: rewritten.checkpoint.config().clone(),
            format: Some(rewritten.format),
            current: rewritten.checkpoint,
            quantized: done,
            layers: plan.layers,
        };
        for layer in plan.dense {
            if layer.is_quantized() || self.adapted(&layer) {
                let work = self.work(changed.layers.len(), layer);
                changed.add_dense(work, plan.format, self.reports)?;
                changed.layers.push(layer);
            }
        }
        Ok(changed)
    }
}

impl<'a> Changed<'a> {
    /// Before the first one.
    fn none(checkpoint: &Checkpoint, format: Option<FloatFormat>, config: Value) -> Self {
        Self {
            layers: Vec::new(),
            dense: BTreeSet::new(),
            outputs: Vec::new(),
            current: checkpoint.clone(),
            quantized: 0,
            format,
            config,
        }
    }

    fn add_dense(
        &mut self,
        work: Work<'a>,
        format: FloatFormat,
        reports: &'a Reports,
    ) -> Result<()> {
        self.dense.insert(work.layer.path());
        self.outputs.extend(work.dense(format, reports)?);
        Ok(())
    }
}
