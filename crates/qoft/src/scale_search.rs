//! Input features that are made larger before a weight is quantized, and smaller where they come from.
//!
//! Features with large inputs matter more. If a weight's columns for them are multiplied by a factor,
//! their rounding errors become smaller beside them; the layer before, whose outputs these features
//! are, is divided by it, so the model computes the same. Lin et al. (arXiv 2306.00978, section 3.2)
//! take powers of the features' sizes for factors, and the exponent with the smallest error of the
//! outputs.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_calibrate::Hessian;
use qoft_core::kernels::FloatFormat;
use qoft_core::{
    BackendOptions, Checkpoint, LayerSource, Matrix, Nearest, NewTensor, Purpose, Quantization,
    Registry, Result, TensorView, WaitingFile,
};
use qoft_models::{LayerSpec, ModelFolder, ModelSpec, ScaledBy};

use crate::calibrate::Calibration;
use crate::quantize::{Plan, QuantizeOptions};

/// Exponents that are tried, from 0 on: each is so many of these shares of 1.
const EXPONENTS: usize = 20;
/// The smallest factor before factors are brought around 1.
const SMALLEST: f32 = 1e-4;

/// The dense model with its inputs scaled for a quantization, as far as its architecture says where
/// they come from; `calibration` has the inputs of all layers that are quantized, and then those of the
/// new model. New tensors wait in a file without a name in `scratch`.
///
/// # Errors
/// If a layer is quantized already or does not fit the settings, or a file cannot be written.
pub fn scale_inputs(
    folder: &ModelFolder,
    registry: &Registry,
    quantization: &Quantization,
    options: &QuantizeOptions,
    calibration: &mut Calibration,
    scratch: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ModelFolder> {
    let Some(spec) = folder.known() else {
        return Ok(folder.clone());
    };
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default())?;
    let plan = options.plan(folder, &schemes, quantization)?;
    let search = Search {
        registry,
        quantization,
        plan: &plan,
        scratch,
    };
    let mut groups: BTreeMap<&ScaledBy, Vec<&LayerSpec>> = BTreeMap::new();
    for layer in spec.layers() {
        if let Some(by) = &layer.scaled_by {
            groups.entry(by).or_default().push(layer);
        }
    }
    let mut current = folder.checkpoint().clone();
    let mut waiting = WaitingFile::new(scratch)?;
    let total = groups.len();
    for (done, (by, layers)) in groups.into_iter().enumerate() {
        let quantized = |layer: &&&LayerSpec| plan.paths().any(|path| path == layer.path);
        let first = layers.iter().find(quantized);
        let inputs = first.map(|layer| calibration.hessian(&layer.path));
        if let Some(hessian) = inputs.transpose()?.flatten() {
            let producer = Producer::read(spec, &current, by, hessian.width())?;
            let scaled = folder.with_checkpoint(current.clone());
            let factors = search.factors(&scaled, &layers, &producer, &hessian)?;
            current.insert(&producer.divided(&factors), &mut waiting)?;
            for layer in layers {
                let tensor = multiplied(&scaled, layer, &factors)?;
                current.insert(&[tensor], &mut waiting)?;
                calibration.divide_inputs(&layer.path, &factors);
            }
            current.release();
        }
        progress(done + 1, total);
    }
    Ok(folder.with_checkpoint(current))
}

/// The tensors whose values make up the features.
struct Producer<'a> {
    by: &'a ScaledBy,
    features: usize,
    /// What is added to the stored values before anything is computed with them.
    offset: f32,
    tensors: Vec<(&'static str, TensorView)>,
}

impl<'a> Producer<'a> {
    /// Those of a model with these layers.
    fn read(
        spec: &ModelSpec,
        checkpoint: &Checkpoint,
        by: &'a ScaledBy,
        features: usize,
    ) -> Result<Self> {
        let has_offset = spec.layer(&by.path).is_some_and(|layer| layer.unit_offset);
        let weight = checkpoint.tensor(&format!("{}.weight", by.path))?;
        let bias = checkpoint.get(&format!("{}.bias", by.path));
        let bias = bias.map(|bias| ("bias", bias));
        Ok(Self {
            by,
            features,
            offset: if has_offset { 1.0 } else { 0.0 },
            tensors: [("weight", weight)].into_iter().chain(bias).collect(),
        })
    }

    /// Factors by which what is stored can be divided without an error where that is possible: a norm
    /// has one value for each feature.
    fn exact(&self, mut factors: Vec<f32>) -> Result<Vec<f32>> {
        let [(_, weight)] = &self.tensors[..] else {
            return Ok(factors);
        };
        if weight.shape().len() != 1 {
            return Ok(factors);
        }
        let values = weight.to_finite_f32()?;
        for (factor, value) in factors.iter_mut().zip(values) {
            let value = value + self.offset;
            let stored = rounded(value / *factor - self.offset, weight.float_format()?);
            let exact = value / (stored + self.offset);
            if exact.is_finite() && exact > 0.0 {
                *factor = exact;
            }
        }
        Ok(factors)
    }

    /// What is stored after a division by the factors.
    fn divided(&self, factors: &[f32]) -> Vec<NewTensor> {
        let divide = |(suffix, tensor): &(&str, TensorView)| {
            let format = tensor.float_format().unwrap_or(FloatFormat::F32);
            let mut values = tensor.to_f32().unwrap_or_default();
            let width = values.len() / tensor.shape()[0].max(1);
            let rows = values.chunks_mut(width.max(1)).skip(self.by.first_row);
            for (row, factor) in rows.take(self.features).zip(factors) {
                for value in row {
                    *value = (*value + self.offset) / factor - self.offset;
                }
            }
            let bytes = format.to_bytes(&values);
            NewTensor::new(
                &self.by.path,
                *suffix,
                tensor.dtype(),
                tensor.shape(),
                bytes,
            )
        };
        self.tensors.iter().map(divide).collect()
    }
}

fn rounded(value: f32, format: FloatFormat) -> f32 {
    let mut value = [value];
    format.round(&mut value);
    value[0]
}

/// The weight of a layer, `[out_features, in_features]`.
fn weight(folder: &ModelFolder, layer: &LayerSpec) -> Result<Matrix> {
    let source = folder.source(&layer.path);
    let tensor = source.tensor("weight")?;
    let stored = Matrix::new(tensor.to_finite_f32()?, tensor.matrix()?);
    Ok(source.dense_layout(stored))
}

fn times(weight: &Matrix, factors: &[f32]) -> Matrix {
    let mut scaled = weight.clone();
    for row in scaled.values.chunks_mut(factors.len()) {
        row.iter_mut()
            .zip(factors)
            .for_each(|(value, factor)| *value *= factor);
    }
    scaled
}

/// The dense weight of a layer with its columns multiplied.
fn multiplied(folder: &ModelFolder, layer: &LayerSpec, factors: &[f32]) -> Result<NewTensor> {
    let source = folder.source(&layer.path);
    let tensor = source.tensor("weight")?;
    let scaled = source.dense_layout(times(&weight(folder, layer)?, factors));
    let bytes = tensor.float_format()?.to_bytes(&scaled.values);
    Ok(NewTensor::new(
        &layer.path,
        "weight",
        tensor.dtype(),
        tensor.shape(),
        bytes,
    ))
}

/// How factors are tried.
struct Search<'a> {
    registry: &'a Registry,
    quantization: &'a Quantization,
    plan: &'a Plan<'a>,
    scratch: &'a Path,
}

impl Search<'_> {
    /// The factors that make the error of the outputs of `layers` smallest.
    fn factors(
        &self,
        folder: &ModelFolder,
        layers: &[&LayerSpec],
        producer: &Producer,
        hessian: &Hessian,
    ) -> Result<Vec<f32>> {
        let quantized = layers
            .iter()
            .filter(|layer| self.plan.paths().any(|path| path == layer.path));
        let weights = quantized.map(|layer| Ok((layer.path.as_str(), weight(folder, layer)?)));
        let weights: Vec<(&str, Matrix)> = weights.collect::<Result<_>>()?;
        let mut best = (f64::INFINITY, vec![1.0; hessian.width()]);
        for step in 0..EXPONENTS {
            let factors = powers(hessian, step as f32 / EXPONENTS as f32);
            let factors = producer.exact(factors)?;
            let mut error = 0.0;
            for (path, weight) in &weights {
                error += self.error(folder.checkpoint(), path, weight, &factors, hessian)?;
            }
            if error < best.0 {
                best = (error, factors);
            }
        }
        Ok(best.1)
    }

    /// The squared error of a layer's outputs.
    fn error(
        &self,
        checkpoint: &Checkpoint,
        path: &str,
        weight: &Matrix,
        factors: &[f32],
        hessian: &Hessian,
    ) -> Result<f64> {
        let mut trial = self.plan.describe(checkpoint.clone(), self.quantization)?;
        let mut waiting = WaitingFile::new(self.scratch)?;
        let scaled = times(weight, factors);
        let format = self.plan.format;
        let tensors = self.quantization.quantize(path, scaled, format, &Nearest)?;
        trial.replace(path, &tensors, &mut waiting)?;
        let schemes = self.registry.open(&trial, &BackendOptions::default())?;
        let source = LayerSource::new(&trial, path, Some(weight.shape));
        let found = Matrix::decode(&*schemes.load(source, Purpose::Forward)?.weight);
        let inverse: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
        let mut off = times(&found, &inverse);
        off.values
            .iter_mut()
            .zip(&weight.values)
            .for_each(|(found, wanted)| *found -= wanted);
        Ok(hessian.squared(&off).unwrap_or(f64::INFINITY))
    }
}

/// The sizes of the inputs to the power of `exponent`, around 1.
fn powers(hessian: &Hessian, exponent: f32) -> Vec<f32> {
    let size = |k| hessian.get(k, k).max(0.0).sqrt();
    let sizes: Vec<f32> = (0..hessian.width()).map(size).collect();
    let largest = sizes
        .iter()
        .copied()
        .fold(0.0, f32::max)
        .max(f32::MIN_POSITIVE);
    let power = |size: &f32| (size / largest).powf(exponent).max(SMALLEST);
    let mut factors: Vec<f32> = sizes.iter().map(power).collect();
    let low = factors.iter().copied().fold(f32::INFINITY, f32::min);
    let high = factors.iter().copied().fold(0.0, f32::max);
    let middle = (low * high).sqrt();
    factors.iter_mut().for_each(|factor| *factor /= middle);
    factors
}
