//! Weights that a merge changes: as dense ones, or quantized again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use qoft_calibrate::Hessian;
use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, CheckpointLayer, ClaimedLayer, LoadedLinear, Matrix, Purpose, Result, WaitingFile,
    float_dtype,
};

use super::{Change, MergedLayer, adapted};
use crate::adapted::{relative_error, rotated};
use crate::adapter::ScaledAdapter;
use crate::own;
use crate::search::{Asked, LayerSearch};
use crate::write::{Data, Output};

/// What is told of the layers.
#[derive(Default)]
pub(super) struct Reports {
    /// Those that adapters change, by their numbers: dense ones are made only when they are written,
    /// and that in the order of the file.
    layers: Mutex<BTreeMap<usize, MergedLayer>>,
    rounded: AtomicUsize,
}

impl Reports {
    fn add(&self, index: usize, layer: MergedLayer) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(index, layer);
    }

    fn add_rounded(&self, is_rounded: bool) {
        let more = usize::from(is_rounded);
        self.rounded.fetch_add(more, Ordering::Relaxed);
    }

    /// Dense weights whose values are not those that the model computes with.
    pub fn rounded(&self) -> usize {
        self.rounded.load(Ordering::Relaxed)
    }

    /// The layers in the order of their numbers.
    pub fn into_layers(self) -> Vec<MergedLayer> {
        let layers = self.layers.into_inner();
        let layers = layers.unwrap_or_else(PoisonError::into_inner);
        layers.into_values().collect()
    }
}

/// A weight before and after the adapters.
pub(super) struct Rotated {
    pub before: Matrix,
    pub weight: Matrix,
    /// The largest ‖RᵀR − I‖ of a block of the adapters.
    orthogonality_error: f64,
    /// What is known of the layer's inputs.
    inputs: Option<Hessian>,
}

impl Rotated {
    fn change(&self, written: &Matrix) -> Change {
        let inputs = self.inputs.as_ref();
        Change::on(inputs, &self.before, &self.weight, written)
    }
}

/// Which values of a layer are quantized again. Libraries take those that they write out; where
/// outputs are compared, it is those that the layer computes with.
fn requantized_from(inputs: Option<&Hessian>) -> Purpose {
    match inputs {
        None => Purpose::Dequantize,
        Some(_) => Purpose::Forward,
    }
}

/// One layer on its way.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    /// Its number among those that change.
    pub index: usize,
    pub layer: ClaimedLayer<'a>,
    pub adapters: &'a [ScaledAdapter],
    /// Which of the layer's values a dense weight has.
    pub dense_values: Purpose,
}

impl<'a> Work<'a> {
    /// The layer, and its weight with the adapters in it, to be quantized again.
    pub fn rotated(&self, search: &dyn LayerSearch) -> Result<(CheckpointLayer, Rotated)> {
        let inputs = search.inputs(self.layer.path())?;
        self.rotated_from(requantized_from(inputs.as_ref()), inputs)
    }

    /// The same, to be quantized in another scheme: what the layer computes with, with the adapters in
    /// it.
    pub fn adapted(&self, search: &dyn LayerSearch) -> Result<(CheckpointLayer, Rotated)> {
        self.rotated_from(Purpose::Forward, search.inputs(self.layer.path())?)
    }

    fn rotated_from(
        &self,
        purpose: Purpose,
        inputs: Option<Hessian>,
    ) -> Result<(CheckpointLayer, Rotated)> {
        let layer = self.layer.parse()?;
        let rotated = self.rotate(&layer, purpose)?;
        Ok((layer, Rotated { inputs, ..rotated }))
    }

    /// The weight before and after the adapters.
    fn rotate(&self, layer: &CheckpointLayer, purpose: Purpose) -> Result<Rotated> {
        let loaded = layer.load(purpose)?;
        let before = Matrix::decode(&*loaded.weight);
        let source = self.layer.source();
        let (weight, orthogonality_error) = rotated(before.clone(), self.adapters, &source)?;
        if !weight.is_finite() {
            let reason = "the merged weight has values that are infinite or not a number";
            return Err(source.error(reason));
        }
        Ok(Rotated {
            before,
            weight,
            orthogonality_error,
            inputs: None,
        })
    }

    /// Tells of the layer, which the backend `by` has now, with codes that the merge's search chose
    /// or not.
    pub fn report(
        &self,
        reports: &Reports,
        rotated: &Rotated,
        written: &Matrix,
        by: &'static str,
        searched: bool,
    ) {
        let layer = MergedLayer {
            name: self.layer.path().to_owned(),
            backend: by,
            orthogonality_error: rotated.orthogonality_error,
            relative_error: relative_error(written, &rotated.weight),
            change: rotated.change(written),
            searched,
        };
        reports.add(self.index, layer);
    }

    /// A bias that is spread over several tensors, as one. A bias under its plain name is kept as
    /// every other tensor is.
    fn gathered(&self, loaded: LoadedLinear, format: FloatFormat) -> Result<Option<Output<'a>>> {
        let bias = loaded.bias.filter(|_| !self.layer.source().has("bias"));
        let gathered = |bias| own::gathered(&self.layer, self.adapters, bias, format);
        bias.map(gathered).transpose()
    }

    /// A bias that is spread over several tensors, for a layer that gets another scheme.
    pub fn gathered_bias(&self, format: FloatFormat) -> Result<Option<Output<'a>>> {
        match own::has_spread_bias(&self.layer) {
            true => self.gathered(self.layer.load(Purpose::Forward)?, format),
            false => Ok(None),
        }
    }

    /// The dense weight, made when it is written, and a bias that is spread over several tensors;
    /// the layer is read once before, to see that it can be.
    pub fn dense(self, format: FloatFormat, reports: &'a Reports) -> Result<Vec<Output<'a>>> {
        let (layer, source) = (self.layer.parse()?, self.layer.source());
        let loaded = layer.load(self.dense_values)?;
        let mut shape = layer.shape().to_vec();
        if source.is_fan_in_fan_out() {
            shape.reverse();
        }
        let bias = self.gathered(loaded, format)?;
        let weight = Output {
            name: format!("{}.weight", self.layer.path()),
            dtype: float_dtype(format),
            shape,
            data: Data::Made(Box::new(move || {
                let written = self.rounded(&layer, format, reports)?;
                Ok(format.to_bytes(&source.dense_layout(written).values))
            })),
        };
        Ok(bias.into_iter().chain([weight]).collect())
    }

    /// The dense weight, rounded to a format.
    pub fn rounded(
        &self,
        layer: &CheckpointLayer,
        format: FloatFormat,
        reports: &Reports,
    ) -> Result<Matrix> {
        let rotated = self.rotate(layer, self.dense_values)?;
        let mut written = rotated.weight.clone();
        written.round(format);
        if self.dense_values != Purpose::Forward {
            let mut computed = self.rotate(layer, Purpose::Forward)?.weight;
            computed.round(format);
            reports.add_rounded(computed.values != written.values);
        }
        if adapted(self.adapters, self.layer.path()) {
            self.report(reports, &rotated, &written, self.layer.backend(), false);
        }
        Ok(written)
    }

    /// Quantizes the rotated layer again, and lets `checkpoint` have what comes out, which waits in
    /// `file`. Layers that share a matrix with it may have been written there before.
    pub fn requantize(
        self,
        (layer, rotated): (CheckpointLayer, Rotated),
        search: &dyn LayerSearch,
        checkpoint: &mut Checkpoint,
        file: &mut WaitingFile,
        reports: &Reports,
    ) -> Result<()> {
        let search = Asked::new(search.search(layer.path(), Some(&rotated.before))?);
        let tensors = layer.requantize(&rotated.weight, &search, checkpoint)?;
        match self.layer.is_quantized() {
            true => checkpoint.replace(layer.path(), &tensors, file)?,
            // What lies beside a plain weight is none of the scheme's.
            false => checkpoint.insert(&tensors, file)?,
        }
        // What readers will find in the new tensors.
        let purpose = requantized_from(rotated.inputs.as_ref());
        let read = self.layer.within(checkpoint).load(purpose)?;
        let written = Matrix::decode(&*read.weight);
        let (by, searched) = (self.layer.backend(), search.was_asked());
        self.report(reports, &rotated, &written, by, searched);
        Ok(())
    }
}
