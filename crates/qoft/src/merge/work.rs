//! Weights that a merge changes: as dense ones, or quantized again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Error, LayerSource, LoadOptions, Matrix, Purpose, QuantBackend, RequantizeOptions,
    Result, WaitingFile, float_dtype,
};

use super::search::Asked;
use super::{Change, LayerSearch, MergedLayer, adapted};
use crate::adapted::{relative_error, rotated};
use crate::adapter::ScaledAdapter;
use crate::own;
use crate::write::{Data, Output};

/// What is told of the layers that adapters change, by their numbers: dense ones are made only
/// when they are written, and that in the order of the file.
#[derive(Default)]
pub(super) struct Reports(Mutex<BTreeMap<usize, MergedLayer>>);

impl Reports {
    fn add(&self, index: usize, layer: MergedLayer) {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(index, layer);
    }

    /// The layers in the order of their numbers.
    pub fn into_layers(self) -> Vec<MergedLayer> {
        let layers = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        layers.into_values().collect()
    }
}

/// A weight before and after the adapters.
pub(super) struct Rotated {
    before: Matrix,
    weight: Matrix,
    /// The largest ‖RᵀR − I‖ of a block of the adapters.
    orthogonality_error: f64,
}

/// One layer on its way.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    /// Its number among those that change.
    pub index: usize,
    pub source: LayerSource<'a>,
    pub backend: &'static dyn QuantBackend,
    pub options: &'a LoadOptions,
    pub adapters: &'a [ScaledAdapter],
}

impl<'a> Work<'a> {
    /// The values that are written, not those that are computed with.
    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            purpose: Purpose::Dequantize,
            ..self.options.clone()
        }
    }

    /// The weight with the adapters in it.
    pub fn rotated(&self) -> Result<Rotated> {
        let loaded = self.backend.load(&self.source, &self.load_options())?;
        let before = Matrix::decode(&*loaded.weight);
        let (weight, orthogonality_error) = rotated(before.clone(), self.adapters, &self.source)?;
        if !weight.is_finite() {
            let reason = "the merged weight has values that are infinite or not a number";
            return Err(self.source.error(self.backend, reason));
        }
        Ok(Rotated {
            before,
            weight,
            orthogonality_error,
        })
    }

    /// Tells of the layer, if adapters change it.
    fn report(&self, reports: &Reports, rotated: &Rotated, written: &Matrix, searched: bool) {
        if adapted(self.adapters, self.source.path()) {
            let layer = MergedLayer {
                name: self.source.path().to_owned(),
                backend: self.backend.name(),
                orthogonality_error: rotated.orthogonality_error,
                relative_error: relative_error(written, &rotated.weight),
                change: Change::new(&rotated.before, &rotated.weight, written),
                searched,
            };
            reports.add(self.index, layer);
        }
    }

    /// The dense weight, made when it is written, and a bias that is spread over several tensors;
    /// the layer is read once before, to see that it can be.
    pub fn dense(self, format: FloatFormat, reports: &'a Reports) -> Result<Vec<Output<'a>>> {
        let loaded = self.backend.load(&self.source, &self.load_options())?;
        let mut shape = loaded.weight.shape().to_vec();
        if self.source.is_fan_in_fan_out() {
            shape.reverse();
        }
        // A bias under its plain name is kept as every other tensor is.
        let bias = loaded.bias.filter(|_| !self.source.has("bias"));
        let gathered =
            |bias| own::gathered(&self.source, self.backend, self.adapters, bias, format);
        let bias = bias.map(gathered).transpose()?;
        let weight = Output {
            name: format!("{}.weight", self.source.path()),
            dtype: float_dtype(format),
            shape,
            data: Data::Made(Box::new(move || {
                let rotated = self.rotated()?;
                let mut written = rotated.weight.clone();
                written.round(format);
                self.report(reports, &rotated, &written, false);
                Ok(format.to_bytes(&self.source.dense_layout(written).values))
            })),
        };
        Ok(bias.into_iter().chain([weight]).collect())
    }

    /// Quantizes the rotated layer again, and lets `checkpoint` have what comes out, which waits in
    /// `file`. Layers that share a matrix with it may have been written there before.
    pub fn requantize(
        self,
        rotated: Rotated,
        search: &dyn LayerSearch,
        checkpoint: &mut Checkpoint,
        file: &mut WaitingFile,
        reports: &Reports,
    ) -> Result<()> {
        let path = self.source.path();
        let search = Asked::new(search.search(path)?);
        let options = RequantizeOptions {
            backend: self.options.backend.clone(),
            search: &search,
        };
        let source = self.source.within(checkpoint);
        let tensors = self.backend.requantize(&source, &rotated.weight, &options);
        checkpoint.replace(path, &tensors.map_err(into_requantize)?, file)?;
        // What readers will find in the new tensors.
        let source = self.source.within(checkpoint);
        let read = self.backend.load(&source, &self.load_options())?;
        let written = Matrix::decode(&*read.weight);
        self.report(reports, &rotated, &written, search.was_asked());
        Ok(())
    }
}

/// Says of an error that it came from writing the layer in its scheme.
fn into_requantize(error: Error) -> Error {
    match error {
        Error::Layer {
            layer,
            backend,
            reason,
        } => Error::Requantize {
            layer,
            backend,
            reason,
        },
        other => other,
    }
}
