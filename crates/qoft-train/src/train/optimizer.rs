//! The optimizer, and what it lets decay.

use burn::module::{ParamGroup, ParamId};
use burn::optim::{AdamWConfig, ModuleOptimizer};
use qoft_core::BIAS;
use qoft_core::{LayerKind, Walk};

use super::config::{OptimizerKind, TrainConfig};

/// The optimizer of a run. As in transformers, biases and the weights of norms do not decay.
pub(super) fn new(config: &TrainConfig, model: &impl Walk) -> ModuleOptimizer {
    match config.optimizer {
        OptimizerKind::AdamW => {
            let adamw = AdamWConfig::new().with_epsilon(1e-8);
            let decaying = adamw.clone().with_weight_decay(config.weight_decay as f32);
            let staying = ParamGroup::from_ids(without_decay(model));
            let staying_adamw = adamw.with_weight_decay(0.0).build();
            decaying.init().with_group(staying, staying_adamw, None)
        }
    }
}

fn without_decay(model: &impl Walk) -> Vec<ParamId> {
    let mut ids = Vec::new();
    for (_, layer) in model.layers() {
        let slots = layer.adapters().slots().iter();
        let own = slots.flat_map(|slot| slot.own());
        let staying = own.filter(|own| layer.kind() == LayerKind::Norm || own.name() == BIAS);
        ids.extend(staying.map(|own| own.param().id()));
    }
    ids
}
