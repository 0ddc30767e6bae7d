//! Multiplying the adapters of a layer into its weight, and taking them out again.
//!
//! A change is planned as a whole, for all layers of a model, and then made: what fails, fails before
//! anything is changed.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::Matrix;

use crate::adapter::{AdapterSlot, Adapters};
use crate::frozen::{Mergeable, Original};
use crate::layer::Layer;
use crate::pass::Pass;
use qoft_scheme::LayerKind;
use qoft_scheme::{Error, Result};

/// What a merge, or its undoing, makes of a layer.
pub(crate) struct Change {
    weight: WeightChange,
    active: Vec<String>,
    merged: Vec<String>,
}

enum WeightChange {
    Stays,
    Replaced { rows: Matrix, original: Original },
    Restored,
}

impl Change {
    /// Multiplies the active adapters of the layer at `path` into its weight.
    pub fn merge(path: &str, layer: &dyn Layer) -> Result<Self> {
        let (adapters, kind) = (layer.adapters(), layer.kind());
        let weight = match (layer.mergeable(), adapters.own_weight()) {
            (Some(weight), Some(own)) => {
                // What was merged before belongs to the new weight, too.
                let computing = computing(adapters, kind);
                let slots = computing.iter().filter_map(|name| adapters.get(name));
                let own = from_tensor(own.value().inner());
                WeightChange::Replaced {
                    rows: multiplied(path, kind, slots.collect(), own)?,
                    original: match (weight.has_original(), has_merged_rotation(adapters)) {
                        (true, _) => Original::AsBefore,
                        (false, true) => Original::Rows(taken_out(path, layer, weight)?),
                        (false, false) => Original::Replaced,
                    },
                }
            }
            (Some(weight), None) if adapters.rotations().next().is_some() => {
                let slots = adapters.active().collect();
                WeightChange::Replaced {
                    rows: multiplied(path, kind, slots, weight.rows())?,
                    original: match weight.is_f32() {
                        true => Original::AsBefore,
                        false => Original::Replaced,
                    },
                }
            }
            // A merged adapter goes on as it did where there is nothing to multiply.
            _ => WeightChange::Stays,
        };
        Ok(Self {
            weight,
            active: Vec::new(),
            merged: computing(adapters, kind),
        })
    }

    /// Takes the merged adapters of the layer at `path` out of its weight. They are active after it.
    pub fn unmerge(path: &str, layer: &dyn Layer) -> Result<Self> {
        let adapters = layer.adapters();
        let weight = match layer.mergeable() {
            Some(weight) if weight.has_original() => WeightChange::Restored,
            Some(weight) if has_merged_rotation(adapters) => WeightChange::Replaced {
                rows: taken_out(path, layer, weight)?,
                original: Original::AsBefore,
            },
            _ => WeightChange::Stays,
        };
        Ok(Self {
            weight,
            active: computing(adapters, layer.kind()),
            merged: Vec::new(),
        })
    }

    /// Makes the change.
    pub fn make(self, layer: &mut dyn Layer) {
        if let Some(weight) = layer.mergeable_mut() {
            match self.weight {
                WeightChange::Stays => (),
                WeightChange::Replaced { rows, original } => weight.replace(&rows, original),
                WeightChange::Restored => weight.restore(),
            }
        }
        let adapters = layer.adapters_mut();
        adapters.set_computing(self.active, self.merged);
    }
}

/// Those that are active and those that are merged, in the order in which the input meets them:
/// what is merged is next to the weight, but the rows of a table come out of it.
fn computing(adapters: &Adapters, kind: LayerKind) -> Vec<String> {
    let active = adapters.active().map(AdapterSlot::name);
    let merged = adapters.merged();
    let all: Vec<&str> = match kind {
        LayerKind::Embedding => merged.chain(active).collect(),
        _ => active.chain(merged).collect(),
    };
    all.into_iter().map(str::to_owned).collect()
}

fn has_merged_rotation(adapters: &Adapters) -> bool {
    let mut slots = adapters.merged().filter_map(|name| adapters.get(name));
    slots.any(|slot| slot.rotation().is_some())
}

/// The weight with adapters in it, which the input meets in this order.
fn multiplied(
    path: &str,
    kind: LayerKind,
    mut slots: Vec<&AdapterSlot>,
    rows: Matrix,
) -> Result<Matrix> {
    // The last adapter stands next to the weight, but the rows of a table meet the first one first.
    if kind != LayerKind::Embedding {
        slots.reverse();
    }
    slots.into_iter().try_fold(rows, |rows, slot| {
        let plain = slot.valid();
        let Some(rotation) = plain.rotation() else {
            return Ok(rows);
        };
        let rows = to_tensor(&rows, &device(slot));
        let rows = match kind {
            LayerKind::Embedding => rotation.forward(rows.into(), Pass::EVALUATION),
            _ => rotation.rotate_weight(rows, Pass::EVALUATION),
        };
        finite(slot, path, from_tensor(rows))
    })
}

/// The weight without the merged adapters, by their inverses.
fn taken_out(path: &str, layer: &dyn Layer, weight: &dyn Mergeable) -> Result<Matrix> {
    let (adapters, kind) = (layer.adapters(), layer.kind());
    let mut slots: Vec<_> = adapters.merged().filter_map(|n| adapters.get(n)).collect();
    if kind == LayerKind::Embedding {
        slots.reverse();
    }
    slots.into_iter().try_fold(weight.rows(), |rows, slot| {
        let plain = slot.valid();
        let Some(rotation) = plain.rotation() else {
            return Ok(rows);
        };
        let rows = to_tensor(&rows, &device(slot));
        let rows = match kind {
            LayerKind::Embedding => rotation.unrotate(rows),
            _ => rotation.unrotate_weight(rows),
        };
        let rows = rows.ok_or_else(|| state(slot, path, "what the adapter does has no inverse"))?;
        finite(slot, path, from_tensor(rows))
    })
}

fn finite(slot: &AdapterSlot, path: &str, rows: Matrix) -> Result<Matrix> {
    if rows.is_finite() {
        return Ok(rows);
    }
    let reason = "the weight gets values that are infinite or not a number";
    Err(state(slot, path, reason))
}

fn state(slot: &AdapterSlot, path: &str, reason: &str) -> Error {
    Error::AdapterState {
        name: slot.name().to_owned(),
        reason: format!("layer `{path}`: {reason}"),
    }
}

/// Where an adapter computes.
fn device(slot: &AdapterSlot) -> Device {
    let device = slot.params().first().map(|param| param.device());
    device.unwrap_or_else(Device::flex).without_autodiff()
}

fn to_tensor(rows: &Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.values.clone(), rows.shape), device)
}

fn from_tensor(rows: Tensor<2>) -> Matrix {
    let shape = rows.dims();
    let values = rows.into_data().try_into_vec::<f32>();
    Matrix::new(values.expect("f32 in, f32 out"), shape)
}
