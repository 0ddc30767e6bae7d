//! What the processes that train together agree on before the first step.

use burn::optim::ModuleOptimizer;

use super::digest::Digest;
use super::moments::{self, parameters};
use super::state::Identity;
use super::trainer::Trainer;
use crate::error::TrainError;
use crate::group::{Group, check_same, decide};
use crate::model::{TrainData, TrainModel};

/// Fails unless all of them train the same: settings, data, and where the parameters and the optimizer are
/// after `step` steps.
pub(super) fn check<D: TrainData>(
    trainer: &Trainer<D>,
    identity: &Identity,
    model: &impl TrainModel<Data = D>,
    optimizer: &ModuleOptimizer,
    step: usize,
) -> Result<(), TrainError> {
    if trainer.group.size() == 1 {
        return Ok(());
    }
    let mut own = identity.parts();
    let mut say = |name: &str, value: String| own.push((name.to_owned(), value));
    say("the number of steps that are done", step.to_string());
    if let Some(data) = trainer.eval_dataset {
        let (digest, rows) = (Digest::of_data(data), data.rows());
        say("the evaluation data", format!("{digest} ({rows} rows)"));
    }
    let first = Digest::of_parameters(model).to_string();
    say("the digest of the first parameters", first);
    if step > 0 {
        let kind = trainer.config.optimizer;
        let bytes = moments::to_bytes(optimizer, kind, &parameters(model), step);
        let bytes = bytes.map_err(TrainError::Optimizer)?;
        let digest = Digest::of_bytes(&bytes).to_string();
        say("the digest of the optimizer's state", digest);
    }
    Ok(check_same(trainer.group, &own)?)
}

/// The evaluations that rank 0 knows of, by its checkpoint and its log.
pub(super) fn evaluations(
    group: &dyn Group,
    own: Vec<(usize, f64)>,
) -> Result<Vec<(usize, f64)>, TrainError> {
    let bits = own.into_iter().map(|(step, loss)| (step, loss.to_bits()));
    let bits: Vec<(usize, u64)> = bits.collect();
    let known = decide::<_, TrainError>(group, || Ok(bits))?.into_iter();
    Ok(known
        .map(|(step, bits)| (step, f64::from_bits(bits)))
        .collect())
}
