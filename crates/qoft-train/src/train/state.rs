//! Checkpoints: what a run needs to continue as if it had never stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Tensor};
use qoft_core::{AdapterSlot, Error, StagedDir, Walk, adapters, write_file};
use qoft_peft::{self as peft, AdapterConfig};
use serde::{Deserialize, Serialize};

use super::ADAPTER;
use super::config::TrainConfig;
use crate::error::TrainError;
use crate::model::TrainModel;

const OPTIMIZER: &str = "optimizer.bin";
const STATE: &str = "trainer_state.json";
const PREFIX: &str = "checkpoint-";

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainerState {
    /// Steps that are done.
    pub(super) step: usize,
    /// Epochs that are done.
    pub(super) epoch: f64,
    /// Rows of the training data.
    pub(super) rows: usize,
    /// The adapters below the one that trains, in words.
    #[serde(default)]
    pub(super) frozen: Vec<String>,
    /// The settings of the run.
    pub(super) config: TrainConfig,
}

impl TrainerState {
    /// Writes `folder/checkpoint-N`, which appears in one piece.
    pub(super) fn save(
        &self,
        model: &impl Walk,
        adapter_config: &dyn AdapterConfig,
        optimizer: &ModuleOptimizer,
        folder: &Path,
    ) -> Result<PathBuf, TrainError> {
        let target = folder.join(format!("{PREFIX}{}", self.step));
        let staged = StagedDir::new(&target)?;
        peft::save(model, adapter_config, ADAPTER, staged.path())?;
        let file = staged.path().join(OPTIMIZER);
        let bytes = optimizer.into_bytes().map_err(|e| Error::file(&file, e))?;
        write_file(&file, &bytes)?;
        let mut text = serde_json::to_string_pretty(self).expect("a plain struct");
        text.push('\n');
        write_file(&staged.path().join(STATE), text.as_bytes())?;
        staged.commit()?;
        Ok(target)
    }

    /// Reads the state in the checkpoint `folder` and checks that a run on `rows` rows with
    /// `config`, on top of the adapters `frozen`, goes on as that one would have.
    pub(super) fn load(
        folder: &Path,
        rows: usize,
        frozen: &[String],
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let path = folder.join(STATE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let state: Self = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
        let old = &state.config;
        let same = [
            ("number of training rows", state.rows == rows),
            ("list of frozen adapters", state.frozen == frozen),
            ("batch_size", old.batch_size == config.batch_size),
            (
                "gradient_accumulation_steps",
                old.gradient_accumulation_steps == config.gradient_accumulation_steps,
            ),
            ("shuffle", old.shuffle == config.shuffle),
            ("seed", old.seed == config.seed || !config.shuffle),
            ("optimizer", old.optimizer == config.optimizer),
        ];
        match same.iter().find(|(_, same)| !same) {
            None => Ok(state),
            Some((key, _)) => Err(TrainError::Resume {
                reason: format!("the run that wrote it had another {key}"),
                path,
            }),
        }
    }
}

/// The optimizer with the state in the checkpoint `folder`.
pub(super) fn restore_optimizer(
    optimizer: ModuleOptimizer,
    folder: &Path,
) -> Result<ModuleOptimizer, TrainError> {
    let path = folder.join(OPTIMIZER);
    if !path.is_file() {
        return Err(TrainError::Resume {
            reason: "the file is missing".into(),
            path,
        });
    }
    optimizer
        .load(&path)
        .map_err(|e| Error::file(path, e).into())
}

/// Gives the adapter of `model` the weights in the checkpoint `folder`.
pub(super) fn restore_adapter(
    model: &mut impl TrainModel,
    folder: &Path,
    device: &Device,
) -> Result<(), TrainError> {
    // The adapter of the folder is attached to a copy, which shares the weights of the model.
    let mut copy = model.clone();
    adapters::delete(&mut copy, ADAPTER)?;
    let (model_type, head) = (model.model_type(), model.head());
    peft::load(&mut copy, folder, model_type, head, ADAPTER, device)?;
    let mut loaded = loaded_params(&copy);
    let mut mismatch = None;
    model.walk_mut("", &mut |path, layer| {
        if let Some(slot) = layer.adapters_mut().get_mut(ADAPTER) {
            match loaded.remove(path) {
                Some(params) if shapes(&params) == slot_shapes(slot) => {
                    slot.set_params(params);
                }
                _ => mismatch = Some(path.to_owned()),
            }
        }
    });
    match mismatch.or_else(|| loaded.into_keys().next()) {
        None => Ok(()),
        Some(layer) => Err(TrainError::Resume {
            path: folder.to_owned(),
            reason: format!("its adapter of layer `{layer}` differs from that of this run"),
        }),
    }
}

/// The parameters of the adapter, by layer.
fn loaded_params(model: &impl Walk) -> BTreeMap<String, Vec<Param<Tensor<2>>>> {
    let mut loaded = BTreeMap::new();
    for (path, layer) in model.layers() {
        if let Some(slot) = layer.adapters().get(ADAPTER) {
            let params = slot.params();
            loaded.insert(path, params.iter().map(|p| p.param.clone()).collect());
        }
    }
    loaded
}

fn shapes(params: &[Param<Tensor<2>>]) -> Vec<[usize; 2]> {
    params.iter().map(|p| p.val().dims()).collect()
}

fn slot_shapes(slot: &AdapterSlot) -> Vec<[usize; 2]> {
    let params = slot.params();
    params.iter().map(|p| p.param.val().dims()).collect()
}

/// Fails if `folder` has a checkpoint of a step after `step`, which the run would meet again.
pub(super) fn check_folder(folder: &Path, step: usize) -> Result<(), TrainError> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let number: Option<usize> = number.and_then(|number| number.parse().ok());
        if number.is_some_and(|number| number > step) {
            return Err(TrainError::LaterCheckpoint { path: entry.path() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> TrainerState {
        TrainerState {
            step: 4,
            epoch: 0.5,
            rows: 16,
            frozen: vec!["first".into()],
            config: TrainConfig::default(),
        }
    }

    #[test]
    fn a_run_with_other_batches_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&state()).unwrap();
        std::fs::write(dir.path().join(STATE), text).unwrap();
        let longer = TrainConfig {
            num_epochs: 9.0,
            ..TrainConfig::default()
        };
        let frozen = state().frozen;
        let load = |rows: usize, frozen: &[String], config: &TrainConfig| {
            TrainerState::load(dir.path(), rows, frozen, config)
        };
        assert_eq!(load(16, &frozen, &longer).unwrap(), state());
        let other = TrainConfig {
            batch_size: 3,
            ..longer.clone()
        };
        let error = load(16, &frozen, &other).unwrap_err();
        assert!(error.to_string().contains("another batch_size"), "{error}");
        let error = load(17, &frozen, &longer).unwrap_err();
        assert!(error.to_string().contains("number of training rows"));
        let error = load(16, &[], &longer).unwrap_err();
        assert!(error.to_string().contains("list of frozen adapters"));
    }

    #[test]
    fn later_checkpoints_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("checkpoint-4")).unwrap();
        check_folder(dir.path(), 4).unwrap();
        assert!(check_folder(dir.path(), 3).is_err());
    }
}
