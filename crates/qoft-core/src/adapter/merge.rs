//! Multiplying the adapters of a layer into its weight, and taking them out again.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::Matrix;

use super::Adapters;
use super::slot::AdapterSlot;
use qoft_scheme::LayerKind;
use qoft_scheme::{Error, Result};

impl Adapters {
    /// The names of the adapters that are multiplied into the weight, in the order in which they
    /// were applied to the input.
    pub fn merged(&self) -> impl Iterator<Item = &str> {
        self.merged.iter().map(String::as_str)
    }

    /// The rows of the weight, turned by the active adapters, which from now on are merged; `None`
    /// if they leave the weight as it is. `base` gives the rows unless an adapter has its own.
    pub(crate) fn merge_into(
        &mut self,
        kind: LayerKind,
        base: impl FnOnce() -> Matrix,
    ) -> Result<Option<Matrix>> {
        let own = self
            .own_weight()
            .map(|own| from_tensor(own.value().inner()));
        if own.is_none() && self.rotations().next().is_none() {
            self.mark_merged(kind);
            return Ok(None);
        }
        let rows = own.unwrap_or_else(base);
        let turn = |rows: Matrix, slot: &AdapterSlot| {
            // Without autodiff, so without dropout.
            let plain = slot.valid();
            let Some(rotation) = plain.rotation() else {
                return Ok(rows);
            };
            let rows = to_tensor(&rows, &device(slot));
            let rows = match kind {
                LayerKind::Embedding => rotation.forward(rows.into()),
                _ => rotation.rotate_weight(rows),
            };
            finite(slot, from_tensor(rows))
        };
        // The last adapter stands next to the weight, but the rows of a table come out of it.
        let rows = match kind {
            LayerKind::Embedding => self.active().try_fold(rows, turn)?,
            _ => self.active().rev().try_fold(rows, turn)?,
        };
        self.mark_merged(kind);
        Ok(Some(rows))
    }

    /// Says of the active adapters that they are merged, beside those that are already.
    pub(crate) fn mark_merged(&mut self, kind: LayerKind) {
        self.merged = match kind {
            LayerKind::Embedding => [&self.merged[..], &self.active].concat(),
            _ => [&self.active[..], &self.merged].concat(),
        };
        self.active.clear();
    }

    /// The rows of the weight without the merged adapters, which from now on are active.
    pub(crate) fn take_out(&mut self, kind: LayerKind, mut rows: Matrix) -> Result<Matrix> {
        let mut slots: Vec<_> = self.merged.iter().filter_map(|n| self.get(n)).collect();
        if kind == LayerKind::Embedding {
            slots.reverse();
        }
        for slot in slots {
            let (plain, turned) = (slot.valid(), to_tensor(&rows, &device(slot)));
            let Some(rotation) = plain.rotation() else {
                continue;
            };
            let back = match kind {
                LayerKind::Embedding => rotation.unrotate(turned),
                _ => rotation.unrotate_weight(turned),
            };
            let back = back.ok_or_else(|| state(slot, "its rotation has no inverse"))?;
            rows = finite(slot, from_tensor(back))?;
        }
        self.forget_merged(kind);
        Ok(rows)
    }

    /// Makes the merged adapters active again, in the order in which they were applied.
    pub(crate) fn forget_merged(&mut self, kind: LayerKind) {
        let merged = std::mem::take(&mut self.merged);
        self.active = match kind {
            LayerKind::Embedding => [&merged[..], &self.active].concat(),
            _ => [&self.active[..], &merged].concat(),
        };
    }
}

fn finite(slot: &AdapterSlot, rows: Matrix) -> Result<Matrix> {
    if rows.values.iter().all(|v| v.is_finite()) {
        return Ok(rows);
    }
    Err(state(
        slot,
        "the weight gets values that are infinite or not a number",
    ))
}

fn state(slot: &AdapterSlot, reason: &str) -> Error {
    Error::AdapterState {
        name: slot.name().to_owned(),
        reason: reason.to_owned(),
    }
}

/// Where an adapter computes.
fn device(slot: &AdapterSlot) -> Device {
    let params = slot.params();
    let device = params.first().map(|p| p.param.val().device());
    device.unwrap_or_else(Device::flex).without_autodiff()
}

fn to_tensor(rows: &Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.values.clone(), rows.shape), device)
}

fn from_tensor(rows: Tensor<2>) -> Matrix {
    let shape = rows.dims();
    let values = rows.into_data().try_into_vec::<f32>();
    Matrix {
        shape,
        values: values.expect("f32 in, f32 out"),
    }
}
