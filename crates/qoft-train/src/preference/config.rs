//! The settings of learning from preferences.

use serde::{Deserialize, Serialize};

use super::loss_type::LossType;
use super::stage::Stage;
use crate::error::{TrainError, invalid};

/// The settings of learning from preferences, with the names and defaults of TRL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PreferenceConfig {
    /// What is learned.
    pub stage: Stage,
    /// How much it counts to stay near the reference; of ORPO how much the odds count beside the
    /// examples, of SimPO how steep the loss is.
    pub beta: f64,
    /// The losses of DPO, which are added up, or that of KTO; the first one of the stage if there is none.
    pub loss_type: Vec<LossType>,
    /// How much each of the losses counts; 1 if there are none.
    pub loss_weights: Vec<f64>,
    /// How much labels are smoothed: see [`LossType`]. Also of SimPO.
    pub label_smoothing: f64,
    /// By how much the better answer should be more likely (SimPO).
    pub simpo_gamma: f64,
    /// How much the cross-entropy of the better answers' tokens counts beside the loss (DPO, SimPO). In CPO
    /// it is called `cpo_alpha`.
    pub rpo_alpha: f64,
    /// The same of the mean over the tokens of each better answer, as the option of this name has it elsewhere.
    pub pref_ftx: f64,
    /// How much good answers count (KTO).
    pub desirable_weight: f64,
    /// How much bad answers count (KTO).
    pub undesirable_weight: f64,
    /// The temperature of [`LossType::Discopop`].
    pub discopop_tau: f64,
    /// Whether the log-probabilities of the reference model are computed before the first step, each once.
    pub precompute_ref_log_probs: bool,
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self {
            stage: Stage::Dpo,
            beta: 0.1,
            loss_type: Vec::new(),
            loss_weights: Vec::new(),
            label_smoothing: 0.0,
            simpo_gamma: 0.5,
            rpo_alpha: 0.0,
            pref_ftx: 0.0,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            discopop_tau: 0.05,
            precompute_ref_log_probs: false,
        }
    }
}

impl PreferenceConfig {
    /// Each loss with its weight.
    pub(super) fn losses(&self) -> Vec<(LossType, f64)> {
        let weight = |at: usize| self.loss_weights.get(at).copied().unwrap_or(1.0);
        match (&self.loss_type[..], self.stage) {
            ([], Stage::Kto) => vec![(LossType::Kto, 1.0)],
            ([], _) => vec![(LossType::Sigmoid, 1.0)],
            (losses, _) => {
                let losses = losses.iter().enumerate();
                losses.map(|(at, loss)| (*loss, weight(at))).collect()
            }
        }
    }

    /// Checks each value, for batches of `batch_size` rows.
    ///
    /// # Errors
    ///
    /// [`TrainError::Config`] for the first value that is impossible, or that has no effect.
    pub fn validate(&self, batch_size: usize) -> Result<(), TrainError> {
        let numbers = [
            ("beta", self.beta),
            ("label_smoothing", self.label_smoothing),
            ("rpo_alpha", self.rpo_alpha),
            ("pref_ftx", self.pref_ftx),
            ("desirable_weight", self.desirable_weight),
            ("undesirable_weight", self.undesirable_weight),
        ];
        if let Some((key, value)) = numbers.iter().find(|(_, v)| !v.is_finite() || *v < 0.0) {
            return Err(invalid(
                key,
                format!("must be a number from 0 on, not {value}"),
            ));
        }
        if !self.simpo_gamma.is_finite() {
            return Err(invalid("simpo_gamma", "must be a number"));
        }
        for (key, value) in [("beta", self.beta), ("discopop_tau", self.discopop_tau)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(invalid(key, "must be above 0"));
            }
        }
        if self.label_smoothing >= 0.5 {
            let reason = "must be below 0.5: more says that the worse answers are the better ones";
            return Err(invalid("label_smoothing", reason));
        }
        self.validate_losses(batch_size)?;
        self.validate_use()
    }

    fn validate_losses(&self, batch_size: usize) -> Result<(), TrainError> {
        let (losses, stage) = (&self.loss_type, self.stage);
        if !self.loss_weights.is_empty() && self.loss_weights.len() != losses.len() {
            let reason = format!(
                "there are {} for {} losses",
                self.loss_weights.len(),
                losses.len()
            );
            return Err(invalid("loss_weights", reason));
        }
        let fits = match stage {
            Stage::Dpo => losses.iter().all(|loss| !loss.is_unpaired()),
            Stage::Kto => losses.len() <= 1 && losses.iter().all(|loss| loss.is_unpaired()),
            Stage::Orpo | Stage::Simpo => losses.is_empty(),
        };
        if !fits {
            let reason = match stage {
                Stage::Dpo => "kto and apo_zero_unpaired are losses of the stage kto",
                Stage::Kto => "the stage kto has one of kto and apo_zero_unpaired",
                Stage::Orpo | Stage::Simpo => "the stages orpo and simpo have one loss each",
            };
            return Err(invalid("loss_type", reason));
        }
        if losses.contains(&LossType::ExoPair) && self.label_smoothing == 0.0 {
            let reason = "exo_pair needs one above 0, such as 0.001";
            return Err(invalid("label_smoothing", reason));
        }
        let (loss, _) = self.losses()[0];
        if stage == Stage::Kto && loss == LossType::Kto && batch_size < 2 {
            let reason = "kto compares the answers of a batch with each other: 2 at least";
            return Err(invalid("batch_size", reason));
        }
        Ok(())
    }

    /// Fails for a value that another stage has.
    fn validate_use(&self) -> Result<(), TrainError> {
        let (default, stage) = (Self::default(), self.stage);
        let pairs = matches!(stage, Stage::Dpo | Stage::Simpo);
        let smooths = [
            LossType::Sigmoid,
            LossType::Robust,
            LossType::ExoPair,
            LossType::Aot,
            LossType::AotUnpaired,
        ];
        let smoothed = stage == Stage::Simpo
            || stage == Stage::Dpo && self.losses().iter().any(|(l, _)| smooths.contains(l));
        let kto = stage == Stage::Kto;
        let used = [
            ("label_smoothing", smoothed, self.label_smoothing != 0.0),
            (
                "simpo_gamma",
                stage == Stage::Simpo,
                self.simpo_gamma != default.simpo_gamma,
            ),
            ("rpo_alpha", pairs, self.rpo_alpha != 0.0),
            ("pref_ftx", pairs, self.pref_ftx != 0.0),
            ("desirable_weight", kto, self.desirable_weight != 1.0),
            ("undesirable_weight", kto, self.undesirable_weight != 1.0),
            (
                "precompute_ref_log_probs",
                stage.has_reference(),
                self.precompute_ref_log_probs,
            ),
        ];
        match used.iter().find(|(_, can, given)| *given && !can) {
            None => Ok(()),
            Some((key, ..)) => Err(invalid(key, "this stage or loss has no use for it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_or_do_nothing_are_named() {
        PreferenceConfig::default().validate(1).unwrap();
        for (json, says) in [
            (r#"{"beta": 0}"#, "`beta`"),
            (r#"{"beta": -1}"#, "`beta`"),
            (r#"{"loss_type": ["kto"]}"#, "`loss_type`"),
            (
                r#"{"stage": "orpo", "loss_type": ["hinge"]}"#,
                "`loss_type`",
            ),
            (
                r#"{"loss_type": ["sigmoid"], "loss_weights": [1, 2]}"#,
                "2 for 1",
            ),
            (r#"{"loss_type": ["exo_pair"]}"#, "`label_smoothing`"),
            (
                r#"{"loss_type": ["hinge"], "label_smoothing": 0.1}"#,
                "`label_smoothing`",
            ),
            (r#"{"label_smoothing": 0.5}"#, "below 0.5"),
            (r#"{"stage": "kto"}"#, "`batch_size`"),
            (r#"{"stage": "orpo", "pref_ftx": 1}"#, "`pref_ftx`"),
            (r#"{"simpo_gamma": 1}"#, "`simpo_gamma`"),
            (
                r#"{"stage": "simpo", "precompute_ref_log_probs": true}"#,
                "`precompute",
            ),
        ] {
            let config: PreferenceConfig = serde_json::from_str(json).unwrap();
            let error = config.validate(1).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
        let kto: PreferenceConfig = serde_json::from_str(r#"{"stage": "kto"}"#).unwrap();
        kto.validate(2).unwrap();
        assert_eq!(kto.losses(), [(LossType::Kto, 1.0)]);
    }
}
