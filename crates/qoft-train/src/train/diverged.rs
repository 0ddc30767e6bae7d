//! Where numbers that are not finite come from.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use qoft_core::{InputObserver, Walk};

use super::ADAPTER;
use crate::model::{TrainBatch, TrainData, TrainModel};

/// The first trained parameter with a value that is not finite.
pub(super) fn parameter(model: &impl Walk) -> Option<String> {
    for (path, layer) in model.layers() {
        let slots = layer.adapters().get(ADAPTER).into_iter();
        for param in slots.flat_map(|slot| slot.params()) {
            if param.to_vec().iter().any(|value| !value.is_finite()) {
                return Some(format!("parameter `{path}.{}`", param.name()));
            }
        }
    }
    None
}

/// What makes the loss of a batch infinite or not a number: a parameter, or what reaches a layer.
pub(super) fn source_of_loss<M: TrainModel>(
    model: &M,
    batch: &<M::Data as TrainData>::Batch,
    device: &Device,
) -> String {
    if let Some(parameter) = parameter(model) {
        return parameter;
    }
    let mut model = model.valid();
    let seen = Arc::new(Mutex::new(Seen::default()));
    model.walk_mut("", &mut |path, layer| {
        let watch = Watch {
            layer: path.to_owned(),
            seen: seen.clone(),
        };
        layer.observe_inputs(Some(Arc::new(watch)));
    });
    let count = batch.predicted().max(1);
    model.loss(batch, count as f64, device).loss.into_data();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match (&seen.bad, &seen.before) {
        (None, Some(last)) => format!("what follows layer `{last}`"),
        (None, None) => "the output of the model".into(),
        (Some(layer), Some(before)) => {
            format!("the input of layer `{layer}`, which follows layer `{before}`")
        }
        (Some(layer), None) => format!("the input of layer `{layer}`, the first one"),
    }
}

/// The layers that were seen, up to the first whose input is not finite.
#[derive(Debug, Default)]
struct Seen {
    before: Option<String>,
    bad: Option<String>,
}

#[derive(Debug)]
struct Watch {
    layer: String,
    seen: Arc<Mutex<Seen>>,
}

impl InputObserver for Watch {
    fn observe(&self, rows: &Tensor<2>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.bad.is_some() {
            return;
        }
        let values = rows.to_data();
        match values.iter::<f32>().all(|value| value.is_finite()) {
            true => seen.before = Some(self.layer.clone()),
            false => seen.bad = Some(self.layer.clone()),
        }
    }
}
