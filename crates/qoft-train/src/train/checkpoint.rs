//! Checkpoints: what a run needs to continue as if it had never stopped.

use std::collections::BTreeMap;
use std::path::Path;

use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use qoft_core::{AdapterParam, AdapterSlot, Error, StagedDir, Walk, adapters, write_file};
use qoft_peft::{AdapterConfig, CONFIG, Families, WEIGHTS};

use super::ADAPTER;
use super::below::Below;
use super::digest::Digest;
use super::moments::{self, parameters};
use super::names::OPTIMIZER;
use super::optimizer_kind::OptimizerKind;
use super::state::{TrainerState, resume};
use crate::error::TrainError;
use crate::model::TrainModel;

/// Writes an adapter, and what stands below it, into a folder.
pub(super) fn save_adapter(
    model: &impl TrainModel,
    config: &dyn AdapterConfig,
    below: &[Below],
    folder: &Path,
) -> Result<(), Error> {
    Below::write(below, folder)?;
    qoft_peft::save_for(model, model.facts(), config, ADAPTER, folder)
}

/// Writes a checkpoint to the new folder `target`, which appears in one piece. The files of `state`
/// are still to be found.
pub(super) fn save(
    mut state: TrainerState,
    model: &impl TrainModel,
    config: &dyn AdapterConfig,
    optimizer: &ModuleOptimizer,
    target: &Path,
) -> Result<(), Error> {
    let staged = StagedDir::new(target)?;
    save_adapter(model, config, &state.run.below, staged.path())?;
    let file = staged.path().join(OPTIMIZER);
    let kept = state.run.config.optimizer;
    let bytes = moments::to_bytes(optimizer, kept, &parameters(model), state.step);
    write_file(&file, &bytes.map_err(|e| Error::file(&file, e))?)?;
    for name in [CONFIG, WEIGHTS, OPTIMIZER] {
        let digest = Digest::of_file(&staged.path().join(name))?;
        state.files.insert(name.into(), digest);
    }
    state.write(staged.path())?;
    staged.commit()
}

/// The optimizer with the state in the checkpoint `folder`, which is after `step` steps.
pub(super) fn restore_optimizer(
    optimizer: ModuleOptimizer,
    kind: OptimizerKind,
    folder: &Path,
    model: &impl TrainModel,
    step: usize,
) -> Result<ModuleOptimizer, TrainError> {
    let path = folder.join(OPTIMIZER);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    moments::from_bytes(optimizer, kind, bytes, &parameters(model), step)
        .map_err(|reason| resume(&path, reason))
}

/// Gives the adapter of `model` the weights in `folder`, a checkpoint or an adapter of the same
/// family. What fails where they are of another one is `unfit`.
pub(super) fn restore_adapter(
    model: &mut impl TrainModel,
    config: &dyn AdapterConfig,
    folder: &Path,
    device: &Device,
    unfit: fn(&Path, String) -> TrainError,
) -> Result<(), TrainError> {
    // The adapter of the folder is attached to a copy, which shares the weights of the model.
    let mut copy = model.clone();
    adapters::delete(&mut copy, ADAPTER)?;
    let families = Families::only(config.family());
    qoft_peft::load(&mut copy, folder, &families, model.facts(), ADAPTER, device)?;
    let mut loaded = loaded_params(&copy);
    let mut mismatch = None;
    model.walk_mut("", &mut |path, layer| {
        if let Some(slot) = layer.adapters_mut().get_mut(ADAPTER) {
            match loaded.remove(path) {
                Some(params) if is_like(&params, slot) => {
                    for (param, loaded) in slot.params_mut().into_iter().zip(params) {
                        *param = loaded;
                    }
                }
                _ => {
                    mismatch.get_or_insert_with(|| path.to_owned());
                }
            }
        }
    });
    match mismatch.or_else(|| loaded.into_keys().next()) {
        None => Ok(()),
        Some(layer) => Err(unfit(folder, format!("its adapter of layer `{layer}`"))),
    }
}

/// The error of a run that cannot go on, since `what` is in `folder` another one.
pub(super) fn of_another_run(folder: &Path, what: String) -> TrainError {
    resume(folder, format!("{what} differs from that of this run"))
}

/// The error of a run that cannot begin with the weights in `folder`, of which `what` is another one.
pub(super) fn of_another_adapter(folder: &Path, what: String) -> TrainError {
    TrainError::Weights {
        path: folder.to_owned(),
        reason: format!(
            "{what} has other blocks, or is not there; the run has the adapter's own options unless others \
             are given: leave out --target-modules, --oft-block-size and their like"
        ),
    }
}

/// The parameters of the adapter, by layer.
fn loaded_params(model: &impl Walk) -> BTreeMap<String, Vec<AdapterParam>> {
    let mut loaded = BTreeMap::new();
    for (path, layer) in model.layers() {
        if let Some(slot) = layer.adapters().get(ADAPTER) {
            let params = slot.params();
            loaded.insert(path, params.into_iter().cloned().collect());
        }
    }
    loaded
}

/// Whether the parameters have the names and shapes of those of `slot`.
fn is_like(params: &[AdapterParam], slot: &AdapterSlot) -> bool {
    let what = |param: &AdapterParam| (param.name(), param.shape().to_vec());
    let expected = slot.params().into_iter().map(what);
    params.iter().map(what).eq(expected)
}

/// The device of the adapter's parameters.
pub(super) fn adapter_device(model: &impl Walk) -> Result<Device, TrainError> {
    let layers = model.layers();
    let slots = layers
        .iter()
        .filter_map(|(_, layer)| layer.adapters().get(ADAPTER));
    let mut params = slots.flat_map(|slot| slot.params());
    let first = params.next().map(|param| param.device());
    first.ok_or_else(|| TrainError::NoAdapter(ADAPTER.into()))
}
