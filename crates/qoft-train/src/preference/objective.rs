//! The loss of a batch and its slopes, from the log-probabilities of the answers.

use super::config::PreferenceConfig;
use super::dual::Dual;
use super::loss_type::LossType;
use super::pair_losses::Pair;
use super::stage::Stage;
use super::whole_losses::{Answered, aot, aot_unpaired};
use crate::metrics::Metrics;

/// What a model says of some rows: one number each.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// The log-probability of all labels of a row.
    pub(super) log_probabilities: Vec<f64>,
    /// How many of them are the likeliest tokens.
    pub(super) right: Vec<f64>,
}

/// What the loss of a batch is made of.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// Of the model. Of pairs the better answers come first, then all worse ones; in ORPO one number more
    /// is that of the better answers' prompts together.
    pub(super) model: &'a Said,
    /// Log-probabilities by the reference, where there is one.
    pub(super) reference: &'a [f64],
    /// How many labels each number is about.
    pub(super) lengths: &'a [f64],
    /// Which answers are good; empty for pairs.
    pub(super) desirable: &'a [bool],
    /// How far the model is from the reference on answers to other prompts (KTO).
    pub(super) distance: f64,
}

/// The mean loss of a batch.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) loss: f64,
    /// Its slopes in the log-probabilities.
    pub(super) slopes: Vec<f64>,
    pub(super) metrics: Metrics,
}

impl Outcome {
    fn new(numbers: usize) -> Self {
        Self {
            loss: 0.0,
            slopes: vec![0.0; numbers],
            metrics: Metrics::default(),
        }
    }

    /// Adds a loss of a better and a worse answer.
    fn add(&mut self, loss: Dual, factor: f64, [chosen, rejected]: [usize; 2]) {
        self.loss += loss.value * factor;
        self.slopes[chosen] += loss.slopes[0] * factor;
        self.slopes[rejected] += loss.slopes[1] * factor;
    }
}

/// The loss of a batch.
pub(super) fn outcome(config: &PreferenceConfig, evidence: &Evidence) -> Outcome {
    match config.stage {
        Stage::Kto => of_judged(config, evidence),
        Stage::Dpo | Stage::Orpo | Stage::Simpo => of_pairs(config, evidence),
    }
}

fn of_pairs(config: &PreferenceConfig, evidence: &Evidence) -> Outcome {
    let (said, lengths) = (evidence.model, evidence.lengths);
    let pairs = match config.stage {
        Stage::Orpo => (lengths.len() - 1) / 2,
        _ => lengths.len() / 2,
    };
    let count = pairs as f64;
    let mut outcome = Outcome::new(lengths.len());
    let by_token = !config.stage.has_reference();
    // The numbers that are compared: log-probabilities, for each token, or less those of the reference.
    let scale = |at: usize| match by_token {
        true => 1.0 / lengths[at].max(1.0),
        false => 1.0,
    };
    let reference = |at: usize| evidence.reference.get(at).copied().unwrap_or(0.0);
    let number = |at: usize| said.log_probabilities[at] * scale(at) - reference(at);
    let mut log_odds = (0.0, 0.0);
    for pair in 0..pairs {
        let places = [pair, pairs + pair];
        let of = Pair {
            chosen: Dual::variable(number(pair), 0),
            rejected: Dual::variable(number(pairs + pair), 1),
            lengths: places.map(|at| lengths[at]),
        };
        let mut add = |loss: Dual, weight: f64| {
            let [chosen, rejected] = loss.slopes;
            let slopes = [chosen * scale(places[0]), rejected * scale(places[1])];
            let loss = Dual { slopes, ..loss };
            outcome.add(loss, weight / count, places);
        };
        match config.stage {
            Stage::Simpo => add(of.simpo(config), 1.0),
            Stage::Orpo => {
                let odds = of.log_odds();
                let ratio = odds.log_sigmoid();
                log_odds.0 += ratio.value;
                log_odds.1 += odds.value;
                add(ratio, -config.beta);
            }
            Stage::Dpo | Stage::Kto => {
                for (loss, weight) in config.losses() {
                    if let Some(loss) = of.loss(loss, config) {
                        add(loss, weight);
                    }
                }
            }
        }
    }
    if config.stage == Stage::Dpo {
        add_whole_losses(config, evidence, pairs, &mut outcome);
    }
    if config.stage == Stage::Orpo {
        outcome.metrics.add("log_odds_ratio", log_odds.0 / count);
        outcome.metrics.add("log_odds_chosen", log_odds.1 / count);
    }
    add_examples(config, evidence, pairs, &mut outcome);
    measure_pairs(config, evidence, pairs, &number, &mut outcome.metrics);
    outcome
}

/// Losses of DPO that belong to the batch as a whole.
fn add_whole_losses(
    config: &PreferenceConfig,
    evidence: &Evidence,
    pairs: usize,
    outcome: &mut Outcome,
) {
    let said = &evidence.model.log_probabilities;
    let (chosen, rejected) = said.split_at(pairs);
    let model = Answered { chosen, rejected };
    let (chosen, rejected) = evidence.reference.split_at(pairs);
    let reference = Answered { chosen, rejected };
    let e = config.label_smoothing;
    let loss = |delta: Dual| {
        let x = delta * config.beta;
        -x.log_sigmoid() * (1.0 - e) - (-x).log_sigmoid() * e
    };
    for (kind, weight) in config.losses() {
        let matched = match kind {
            LossType::Aot => aot(model, reference, &loss),
            LossType::AotUnpaired => {
                let less = |a: &[f64], b: &[f64]| -> Vec<f64> {
                    a.iter().zip(b).map(|(a, b)| a - b).collect()
                };
                let chosen = less(model.chosen, reference.chosen);
                let rejected = less(model.rejected, reference.rejected);
                let ratios = Answered {
                    chosen: &chosen,
                    rejected: &rejected,
                };
                aot_unpaired(ratios, &loss)
            }
            _ => continue,
        };
        for pair in matched {
            let places = [pair.chosen, pairs + pair.rejected];
            outcome.add(pair.loss, weight / pairs as f64, places);
        }
    }
}

/// What the better answers count as examples.
fn add_examples(
    config: &PreferenceConfig,
    evidence: &Evidence,
    pairs: usize,
    outcome: &mut Outcome,
) {
    let (said, lengths) = (&evidence.model.log_probabilities, evidence.lengths);
    let of_losses = config.losses();
    let of_losses = of_losses.iter().filter(|(loss, _)| *loss == LossType::Sft);
    let (by_token, whole_rows) = match config.stage {
        Stage::Orpo => (1.0, true),
        Stage::Dpo => (
            config.rpo_alpha + of_losses.map(|(_, weight)| weight).sum::<f64>(),
            false,
        ),
        _ => (config.rpo_alpha, false),
    };
    // In ORPO the prompts of the better answers are learned, too.
    let mut places: Vec<usize> = (0..pairs).collect();
    places.extend(whole_rows.then_some(2 * pairs));
    if by_token != 0.0 {
        let tokens: f64 = places.iter().map(|&at| lengths[at]).sum();
        let total: f64 = places.iter().map(|&at| said[at]).sum();
        let mean = 1.0 / tokens.max(1.0);
        outcome.loss -= by_token * total * mean;
        for at in places {
            outcome.slopes[at] -= by_token * mean;
        }
        outcome.metrics.add("nll_loss", -total * mean);
    }
    if config.pref_ftx != 0.0 {
        for at in 0..pairs {
            let share = config.pref_ftx / (lengths[at].max(1.0) * pairs as f64);
            outcome.loss -= share * said[at];
            outcome.slopes[at] -= share;
        }
    }
}

fn measure_pairs(
    config: &PreferenceConfig,
    evidence: &Evidence,
    pairs: usize,
    number: &dyn Fn(usize) -> f64,
    metrics: &mut Metrics,
) {
    let said = evidence.model;
    let mean = |of: &dyn Fn(usize) -> f64| (0..pairs).map(of).sum::<f64>() / pairs as f64;
    let reward = |at: usize| config.beta * number(at);
    let (chosen, rejected) = (|pair| reward(pair), |pair| reward(pairs + pair));
    metrics.add("rewards/chosen", mean(&chosen));
    metrics.add("rewards/rejected", mean(&rejected));
    metrics.add(
        "rewards/margins",
        mean(&|pair| chosen(pair) - rejected(pair)),
    );
    let is_right = |pair| {
        if chosen(pair) > rejected(pair) {
            1.0
        } else {
            0.0
        }
    };
    metrics.add("rewards/accuracies", mean(&is_right));
    let of_row = |at: usize| match config.stage.has_reference() {
        true => said.log_probabilities[at],
        false => said.log_probabilities[at] / evidence.lengths[at].max(1.0),
    };
    metrics.add("logps/chosen", mean(&of_row));
    metrics.add("logps/rejected", mean(&|pair| of_row(pairs + pair)));
    let right: f64 = said.right[..pairs].iter().sum();
    let tokens: f64 = evidence.lengths[..pairs].iter().sum();
    metrics.add(Metrics::TOKEN_ACCURACY, right / tokens);
}

fn of_judged(config: &PreferenceConfig, evidence: &Evidence) -> Outcome {
    let said = &evidence.model.log_probabilities;
    let count = said.len() as f64;
    let mut outcome = Outcome::new(said.len());
    let (loss, _) = config.losses()[0];
    let distance = match loss {
        LossType::Kto => evidence.distance.max(0.0),
        _ => 0.0,
    };
    // Of the good answers, and of the bad ones: rewards, log-probabilities and how many there are.
    let mut kinds = [[0.0; 3]; 2];
    for (at, &desirable) in evidence.desirable.iter().enumerate() {
        let reference = evidence.reference.get(at).copied().unwrap_or(0.0);
        let ratio = Dual::variable(said[at] - reference, 0);
        let (ahead, weight) = match desirable {
            true => (ratio + -distance, config.desirable_weight),
            false => (-ratio + distance, config.undesirable_weight),
        };
        let loss = -(ahead * config.beta).sigmoid() + 1.0;
        outcome.loss += loss.value * weight / count;
        outcome.slopes[at] += loss.slopes[0] * weight / count;
        let kind = &mut kinds[usize::from(!desirable)];
        let more = [config.beta * ratio.value, said[at], 1.0];
        kind.iter_mut()
            .zip(more)
            .for_each(|(sum, more)| *sum += more);
    }
    // What there is none of has no mean, and is not measured.
    let metrics = &mut outcome.metrics;
    let [[good, good_logps, goods], [bad, bad_logps, bads]] = kinds;
    metrics.add("rewards/chosen", good / goods);
    metrics.add("rewards/rejected", bad / bads);
    metrics.add("rewards/margins", good / goods - bad / bads);
    metrics.add("logps/chosen", good_logps / goods);
    metrics.add("logps/rejected", bad_logps / bads);
    metrics.add("kl", distance);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pairs, in ORPO with prompts.
    fn evidence<'a>(model: &'a Said, lengths: &'a [f64], reference: &'a [f64]) -> Evidence<'a> {
        Evidence {
            model,
            reference,
            lengths,
            desirable: &[],
            distance: 0.3,
        }
    }

    fn check(config: &PreferenceConfig, judged: bool) {
        let lengths = [3.0, 4.0, 2.0, 5.0, 6.0];
        let numbers = if config.stage == Stage::Orpo { 5 } else { 4 };
        let reference = match config.stage.has_reference() {
            true => vec![-4.1, -6.0, -3.0, -7.7],
            false => Vec::new(),
        };
        let at = [-4.0, -6.5, -3.5, -7.0, -9.0];
        let desirable = [true, false, false, true];
        let value = |log_probabilities: Vec<f64>| {
            let right = vec![1.0; log_probabilities.len()];
            let said = Said {
                log_probabilities,
                right,
            };
            let mut evidence = evidence(&said, &lengths[..numbers], &reference);
            if judged {
                evidence.desirable = &desirable;
            }
            outcome(config, &evidence)
        };
        let found = value(at[..numbers].to_vec());
        assert_eq!(found.slopes.len(), numbers);
        for i in 0..numbers {
            let moved = |step: f64| {
                let mut at = at[..numbers].to_vec();
                at[i] += step;
                value(at).loss
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let error = (found.slopes[i] - slope).abs();
            assert!(error < 1e-6, "{config:?} {i}: {} {slope}", found.slopes[i]);
        }
    }

    #[test]
    fn slopes_are_those_of_differences() {
        let names = [
            "sigmoid",
            "hinge",
            "ipo",
            "exo_pair",
            "nca_pair",
            "robust",
            "bco_pair",
            "sppo_hard",
            "aot",
            "aot_unpaired",
            "apo_zero",
            "apo_down",
            "discopop",
            "sft",
            "sigmoid_norm",
        ];
        let read = |json: String| -> PreferenceConfig { serde_json::from_str(&json).unwrap() };
        for name in names {
            check(
                &read(format!(
                    r#"{{"loss_type": ["{name}", "sigmoid"], "loss_weights": [0.7, 0.2],
                    "label_smoothing": 0.1, "rpo_alpha": 0.3, "pref_ftx": 0.2, "beta": 0.4}}"#
                )),
                false,
            );
        }
        check(&read(r#"{"stage": "orpo", "beta": 0.4}"#.into()), false);
        check(
            &read(
                r#"{"stage": "simpo", "beta": 2, "rpo_alpha": 0.5, "label_smoothing": 0.1}"#.into(),
            ),
            false,
        );
        for loss in ["kto", "apo_zero_unpaired"] {
            check(
                &read(format!(
                    r#"{{"stage": "kto", "loss_type": ["{loss}"], "beta": 0.4,
                    "desirable_weight": 1.5, "undesirable_weight": 0.5}}"#
                )),
                true,
            );
        }
    }
}
