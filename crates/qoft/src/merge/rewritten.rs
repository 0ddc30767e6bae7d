//! A model whose layers are written in another scheme.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    BackendOptions, Checkpoint, CheckpointLayer, LayerSource, Matrix, Purpose, Result, Schemes,
    WaitingFile,
};
use qoft_models::ModelFolder;

use super::work::{Reports, Rotated, Work};
use super::{NewScheme, adapted};
use crate::model_dtype::with_dtype;
use crate::owners::{Owners, is_bias};
use crate::quantize::Plan;
use crate::search::Asked;

/// A checkpoint in which more and more layers are of another scheme.
pub(super) struct Rewritten<'a> {
    target: NewScheme<'a>,
    /// The model's dtype.
    pub format: FloatFormat,
    /// With the layers that were written, which wait in a file.
    pub checkpoint: Checkpoint,
    file: WaitingFile,
    /// Opened when the first layer is there: some schemes look at layers to tell their variants.
    schemes: Option<Schemes>,
}

impl<'a> Rewritten<'a> {
    /// The model of `folder` before its first layer is written; none of those that will be are there.
    ///
    /// # Errors
    /// If no file can be made in `scratch`.
    pub fn new(
        target: NewScheme<'a>,
        plan: &Plan,
        folder: &ModelFolder,
        scratch: &Path,
    ) -> Result<Self> {
        plan.tell_of_left_out();
        let config = with_dtype(folder.checkpoint().config().clone(), plan.format);
        let checkpoint = folder.checkpoint().clone().with_config(config);
        let checkpoint = plan.describe(checkpoint, target.quantization)?;
        let owners = Owners::new(&plan.layers);
        let is_kept = |name: &str| {
            let owner = owners.of(name);
            owner.is_none_or(|layer| is_bias(name, layer))
        };
        let kept = |name: &str| is_kept(name).then(|| name.to_owned());
        Ok(Self {
            target,
            format: plan.format,
            checkpoint: checkpoint.renamed(kept),
            file: WaitingFile::new(scratch)?,
            schemes: None,
        })
    }

    /// Writes one layer.
    ///
    /// # Errors
    /// If the weight does not fit the settings.
    pub fn write(
        &mut self,
        work: &Work,
        (layer, rotated): (CheckpointLayer, Rotated),
        reports: &Reports,
    ) -> Result<()> {
        let (path, target) = (layer.path(), self.target);
        let before = adapted(work.adapters, path).then_some(&rotated.before);
        let search = Asked::new(target.search.search(path, before)?);
        let weight = rotated.weight.clone();
        let tensors = target
            .quantization
            .quantize(path, weight, self.format, &search)?;
        self.checkpoint.replace(path, &tensors, &mut self.file)?;
        let written = self.read(path, layer.shape())?;
        let backend = target.quantization.backend();
        work.report(reports, &rotated, &written, backend, search.was_asked());
        Ok(())
    }

    /// The weight of a layer as readers will find it.
    fn read(&mut self, path: &str, shape: [usize; 2]) -> Result<Matrix> {
        let schemes = match &self.schemes {
            Some(schemes) => schemes,
            None => {
                let registry = self.target.registry;
                let opened = registry.open(&self.checkpoint, &BackendOptions::default())?;
                self.schemes.insert(opened)
            }
        };
        let source = LayerSource::new(&self.checkpoint, path, Some(shape));
        let loaded = schemes.load(source, Purpose::Forward)?;
        Ok(Matrix::decode(&*loaded.weight))
    }
}
