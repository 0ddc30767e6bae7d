//! What a merge tells about itself.

use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::{Error, Result};
use qoft_train::Evaluation;
use serde_json::{Value, json};

use super::change::Change;
use crate::write::{REPORT, write_json};

/// What was merged and written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MergeReport {
    /// The layers that changed, by adapters or by getting another scheme.
    pub layers: Vec<MergedLayer>,
    /// Quantized layers that were written dense, whether they changed or not.
    pub dequantized: usize,
    /// Those of them whose weights are not the values that the model computes with, since the library
    /// of their scheme rounds them to a dtype of its own, see [`MergeOptions::dense_values`].
    ///
    /// [`MergeOptions::dense_values`]: super::MergeOptions::dense_values
    pub rounded: usize,
    /// Layers that were quantized, again or in another scheme.
    pub quantized: usize,
    /// The share of the change that had to be kept.
    pub min_kept: f64,
    /// What the merge did to the loss, if that was measured.
    pub losses: Option<MergeLosses>,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// A layer that an adapter was multiplied into.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MergedLayer {
    /// Module path.
    pub name: String,
    /// The backend that reads what was written; of a layer that was made dense, the one before.
    pub backend: &'static str,
    /// The largest ‖RᵀR − I‖ (Frobenius) of a block of its rotations.
    pub orthogonality_error: f64,
    /// ‖written − rotated‖ / ‖rotated‖ (Frobenius): what rounding or quantizing again cost.
    pub relative_error: f64,
    /// What the adapters change, and how much of that is in the written weight.
    pub change: Change,
    /// Whether the merge's code search chose its codes. It does not where the layer is written
    /// dense, nor where a scheme has a search of its own since its codes stand for several weights.
    pub searched: bool,
}

impl MergedLayer {
    /// The last component of the module path, such as `q_proj`.
    pub fn kind(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The number of the block that the layer is in: the first number in the path.
    pub fn block(&self) -> Option<usize> {
        self.name.split('.').find_map(|part| part.parse().ok())
    }
}

/// The mean loss on some data before and after a merge.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MergeLosses {
    /// That of the model with its adapters beside the weights.
    pub adapted: f64,
    /// That of the merged checkpoint.
    pub merged: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
}

impl MergeLosses {
    /// Those of two evaluations with the same data.
    pub fn between(adapted: &Evaluation, merged: &Evaluation) -> Self {
        Self {
            adapted: adapted.loss,
            merged: merged.loss,
            tokens: adapted.tokens,
        }
    }
}

/// The errors of all layers of one kind.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct KindSummary {
    /// The last component of the layers' paths.
    pub kind: String,
    /// How many changed.
    pub layers: usize,
    /// The mean of their relative errors.
    pub mean: f64,
    /// The largest of their relative errors.
    pub worst: f64,
    /// The share of their changes that was written, see [`MergeReport::change_kept`].
    pub change_kept: f64,
}

/// The shares of what adapters change that several layers together kept, see [`Change::kept`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct KeptShares {
    /// Of the weights.
    pub weights: f64,
    /// Of the layers' outputs, as far as calibration data shows them.
    pub outputs: Option<f64>,
    /// ‖written − wanted‖ / ‖change‖ of the outputs, or of the weights where none are measured: below 1
    /// the layers are nearer to the adapted ones than to those from before. Shares do not count errors
    /// that are none of the change; this does.
    pub error: f64,
}

impl KeptShares {
    /// Those of some layers.
    pub(super) fn of(layers: &[MergedLayer]) -> Self {
        let changes = layers.iter().map(|layer| &layer.change);
        let measured = changes.clone().any(|change| change.outputs.is_some());
        Self {
            weights: Change::kept_by_weights(changes.clone()),
            outputs: measured.then(|| Change::kept_by_all(changes)),
            error: error(layers),
        }
    }
}

/// The error of several layers as a multiple of their change, each counting by how large its change is
/// beside what it had before.
fn error(layers: &[MergedLayer]) -> f64 {
    let (mut errors, mut changes) = (0.0, 0.0);
    for layer in layers {
        let change = &layer.change;
        let (error, relative) = match change.outputs {
            Some(outputs) => (outputs.error * outputs.relative, outputs.relative),
            // Rotations leave the norm of a weight as it is.
            None => (layer.relative_error, change.relative),
        };
        errors += error.powi(2);
        changes += relative.powi(2);
    }
    match changes {
        0.0 => 0.0,
        changes => (errors / changes).sqrt(),
    }
}

impl MergeReport {
    /// The layers from the largest relative error to the smallest.
    pub fn worst_first(&self) -> Vec<&MergedLayer> {
        let mut layers: Vec<_> = self.layers.iter().collect();
        layers.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error));
        layers
    }

    /// The share of what the adapters change in all layers that was written: of the layers' outputs
    /// where calibration data shows them, of the weights otherwise; see [`Change::kept`].
    pub fn change_kept(&self) -> f64 {
        Change::kept_by_all(self.layers.iter().map(|layer| &layer.change))
    }

    /// The same of the weights and of the outputs apart.
    pub fn kept(&self) -> KeptShares {
        KeptShares::of(&self.layers)
    }

    /// Fails if less was kept than had to be.
    pub(super) fn check_kept(&self) -> Result<()> {
        let (kept, min_kept) = (self.change_kept(), self.min_kept);
        // Not even a share that is no number.
        if min_kept == 0.0 || kept >= min_kept {
            return Ok(());
        }
        let of = match self.kept().outputs {
            Some(_) => "the layers' outputs",
            None => "the weights",
        };
        Err(Error::LittleKept { kept, min_kept, of })
    }

    /// A summary for each kind of layer, in the order of their names.
    pub fn kinds(&self) -> Vec<KindSummary> {
        let mut kinds: BTreeMap<&str, Vec<&MergedLayer>> = BTreeMap::new();
        for layer in &self.layers {
            kinds.entry(layer.kind()).or_default().push(layer);
        }
        let summary = |(kind, layers): (&str, Vec<&MergedLayer>)| {
            let errors = || layers.iter().map(|layer| layer.relative_error);
            KindSummary {
                kind: kind.to_owned(),
                layers: layers.len(),
                mean: errors().sum::<f64>() / layers.len() as f64,
                worst: errors().fold(0.0, f64::max),
                change_kept: Change::kept_by_all(layers.iter().map(|layer| &layer.change)),
            }
        };
        kinds.into_iter().map(summary).collect()
    }

    /// The report with its summaries as one JSON object.
    pub fn to_json(&self) -> Value {
        json!({
            "kinds": self.kinds(),
            "layers": self.layers,
            "dequantized": self.dequantized,
            "quantized": self.quantized,
            "change_kept": self.change_kept(),
            "kept": self.kept(),
            "min_kept": self.min_kept,
            "losses": self.losses,
            "tensors": self.tensors,
            "shards": self.shards,
            "bytes": self.bytes,
        })
    }

    /// Writes `merge_report.json` into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(REPORT), &self.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_ordered_and_summed_up() {
        let layer = |name: &str, relative_error| MergedLayer {
            name: name.into(),
            backend: "dense",
            orthogonality_error: 0.0,
            relative_error,
            change: Change {
                norm: 2.0,
                relative: 0.5,
                kept: 1.0 - relative_error,
                outputs: None,
            },
            searched: true,
        };
        let report = MergeReport {
            layers: vec![
                layer("model.layers.0.mlp.up_proj", 0.25),
                layer("model.layers.1.mlp.up_proj", 0.75),
                layer("lm_head", 0.5),
            ],
            dequantized: 0,
            rounded: 0,
            quantized: 3,
            min_kept: 0.0,
            losses: None,
            tensors: 3,
            shards: 1,
            bytes: 12,
        };
        let names: Vec<_> = report.worst_first().iter().map(|l| l.block()).collect();
        assert_eq!(names, [Some(1), None, Some(0)]);
        let kinds = report.kinds();
        assert_eq!(kinds.len(), 2);
        assert_eq!(kinds[1].kind, "up_proj");
        assert_eq!(kinds[1].layers, 2);
        assert_eq!(kinds[1].mean, 0.5);
        assert_eq!(kinds[1].worst, 0.75);
        assert_eq!((kinds[1].change_kept, report.change_kept()), (0.5, 0.5));
        assert_eq!(report.to_json()["change_kept"], 0.5);
        assert_eq!(report.to_json()["kinds"][0]["kind"], "lm_head");
    }
}
