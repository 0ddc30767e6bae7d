//! Options of learning from preferences.

use anyhow::{Result, bail};
use clap::Args;
use qoft::train::data::AnswerTokens;
use qoft::train::preference::{PreferenceConfig, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::named;
use super::names::names;
use super::values::{finite, object};

/// Options of learning from preferences. All but `stage` have the same name in [`PreferenceConfig`].
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Preferences")]
pub struct PreferenceArgs {
    /// What is learned: examples (`sft`), or preferences by `dpo`, `orpo`, `kto` or `simpo`
    /// [default: sft].
    #[arg(long)]
    pub stage: Option<String>,
    /// How much it counts to stay near the reference; of orpo how much the odds count, of simpo how
    /// steep the loss is [default: 0.1].
    #[arg(long, value_parser = finite)]
    pub beta: Option<f64>,
    /// Loss of dpo, or several separated by commas: `sigmoid`, `hinge`, `ipo`, `exo_pair`, `nca_pair`,
    /// `robust`, `bco_pair`, `sppo_hard`, `aot`, `aot_unpaired`, `apo_zero`, `apo_down`, `discopop`,
    /// `sft` or `sigmoid_norm`; of kto `kto` or `apo_zero_unpaired` [default: sigmoid, kto].
    #[arg(long, value_name = "LOSS[,LOSS…]")]
    pub loss_type: Option<String>,
    /// How much each of several losses counts [default: 1].
    #[arg(long, value_name = "NUMBER[,NUMBER…]")]
    pub loss_weights: Option<String>,
    /// Share of the pairs that may be the wrong way round (dpo, simpo) [default: 0].
    #[arg(long, value_parser = finite)]
    pub label_smoothing: Option<f64>,
    /// By how much the better answer should be more likely (simpo) [default: 0.5].
    #[arg(long, value_parser = finite)]
    pub simpo_gamma: Option<f64>,
    /// How much the better answers count as examples, by tokens (dpo, simpo) [default: 0].
    #[arg(long, value_parser = finite)]
    pub rpo_alpha: Option<f64>,
    /// The same by answers [default: 0].
    #[arg(long, value_parser = finite)]
    pub pref_ftx: Option<f64>,
    /// How much good answers count (kto) [default: 1].
    #[arg(long, value_parser = finite)]
    pub desirable_weight: Option<f64>,
    /// How much bad answers count (kto) [default: 1].
    #[arg(long, value_parser = finite)]
    pub undesirable_weight: Option<f64>,
    /// Temperature of the loss `discopop` [default: 0.05].
    #[arg(long, value_parser = finite)]
    pub discopop_tau: Option<f64>,
    /// Compute what the reference says of all rows before the first step, each once.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub precompute_ref_log_probs: Option<bool>,
}

/// The stages that learn from preferences.
const STAGES: [&str; 4] = ["dpo", "orpo", "kto", "simpo"];

impl PreferenceArgs {
    /// How preferences are learned; nothing where examples are.
    pub fn config(&self) -> Result<Option<PreferenceConfig>> {
        let mut given = object(self)?;
        given.retain(|_, value| !value.is_null());
        let stage = self.stage.as_deref().unwrap_or("sft").to_lowercase();
        given.remove("stage");
        if stage == "pt" {
            bail!(
                "--stage pt: texts are learned whole without it: rows with `text`, or any rows by --train-on all; \
                 --packing puts several into a row"
            );
        }
        if stage == "sft" {
            if let Some(name) = given.keys().next() {
                bail!(
                    "--{}: it belongs to learning from preferences: --stage dpo, orpo, kto or simpo",
                    name.replace('_', "-")
                );
            }
            return Ok(None);
        }
        let losses = names(self.loss_type.as_deref().unwrap_or_default());
        // In LLaMA-Factory these are losses of the stage dpo.
        let stage = match (stage.as_str(), &losses[..]) {
            ("dpo", [one]) if one == "orpo" || one == "simpo" => one.clone(),
            _ => stage,
        };
        if losses == [stage.as_str()] && matches!(stage.as_str(), "orpo" | "simpo") {
            given.remove("loss_type");
        }
        given.insert("stage".into(), stage.into());
        if given.contains_key("loss_type") {
            given.insert("loss_type".into(), losses.into());
        }
        if let Some(text) = &self.loss_weights {
            let weights = names(text).into_iter();
            let weights = weights.map(|weight| json!(weight.parse::<f64>().ok()));
            given.insert(
                "loss_weights".into(),
                weights.collect::<Vec<Value>>().into(),
            );
        }
        let stage = given["stage"].as_str().unwrap_or_default();
        if !STAGES.contains(&stage) {
            bail!("--stage {stage}: there are sft, {}", STAGES.join(", "));
        }
        let defaults = object(&PreferenceConfig::default())?;
        Ok(Some(named::read(&defaults, &given)?))
    }
}

/// How prompts and answers become tokens for a stage.
pub fn answer_tokens(config: Option<&PreferenceConfig>) -> AnswerTokens {
    match config.map(|config| config.stage) {
        Some(Stage::Orpo | Stage::Simpo) => AnswerTokens::WithEnds,
        _ => AnswerTokens::AsTexts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_settings() {
        let args = PreferenceArgs::default();
        assert_eq!(args.config().unwrap(), None);
        let args = PreferenceArgs {
            stage: Some("dpo".into()),
            loss_type: Some("sigmoid,sft".into()),
            loss_weights: Some("1, 0.5".into()),
            ..args
        };
        let config = args.config().unwrap().unwrap();
        assert_eq!(config.loss_weights, [1.0, 0.5]);
        assert_eq!((config.beta, config.loss_type.len()), (0.1, 2));
        // As LLaMA-Factory has it.
        let args = PreferenceArgs {
            stage: Some("dpo".into()),
            loss_type: Some("simpo".into()),
            ..PreferenceArgs::default()
        };
        let config = args.config().unwrap().unwrap();
        assert!(config.stage == Stage::Simpo && config.loss_type.is_empty());
        assert_eq!(answer_tokens(Some(&config)), AnswerTokens::WithEnds);
    }

    #[test]
    fn wrong_values_are_named() {
        for (args, says) in [
            (
                PreferenceArgs {
                    beta: Some(0.2),
                    ..PreferenceArgs::default()
                },
                "--beta: it belongs",
            ),
            (
                PreferenceArgs {
                    stage: Some("ppo".into()),
                    ..PreferenceArgs::default()
                },
                "--stage ppo",
            ),
            (
                PreferenceArgs {
                    stage: Some("dpo".into()),
                    loss_type: Some("sigmoid,none".into()),
                    ..PreferenceArgs::default()
                },
                "--loss-type",
            ),
            (
                PreferenceArgs {
                    stage: Some("dpo".into()),
                    loss_type: Some("sigmoid".into()),
                    loss_weights: Some("much".into()),
                    ..PreferenceArgs::default()
                },
                "--loss-weights",
            ),
        ] {
            let error = args.config().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
