//! Losses of one pair by itself.

use super::config::PreferenceConfig;
use super::dual::Dual;
use super::loss_type::LossType;

/// What the losses of a pair are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// The log-probability of the better answer, less that of the reference.
    pub(super) chosen: Dual,
    /// The same of the worse one.
    pub(super) rejected: Dual,
    /// The tokens of both.
    pub(super) lengths: [f64; 2],
}

impl Pair {
    /// `[−log sigmoid(x)]` with smoothed labels.
    fn logistic(config: &PreferenceConfig, x: Dual) -> Dual {
        let e = config.label_smoothing;
        -x.log_sigmoid() * (1.0 - e) - (-x).log_sigmoid() * e
    }

    /// The difference of the log-probabilities for each token.
    fn difference_by_token(&self) -> Dual {
        let [chosen, rejected] = self.lengths.map(|length| 1.0 / length.max(1.0));
        self.chosen * chosen - self.rejected * rejected
    }

    /// The loss; nothing for those of a whole batch.
    pub(super) fn loss(&self, loss: LossType, config: &PreferenceConfig) -> Option<Dual> {
        let (beta, e) = (config.beta, config.label_smoothing);
        let [chosen, rejected] = [self.chosen, self.rejected].map(|ratio| ratio * beta);
        let margin = chosen - rejected;
        let both = |of: fn(Dual) -> Dual| (of(margin), of(-margin));
        let loss = match loss {
            LossType::Sigmoid => Self::logistic(config, margin),
            LossType::Hinge => (-margin + 1.0).positive(),
            LossType::Ipo => (self.difference_by_token() + -0.5 / beta).square(),
            LossType::SigmoidNorm => -(self.difference_by_token() * beta).log_sigmoid(),
            LossType::ExoPair => {
                let (better, worse) = both(Dual::sigmoid);
                let (log_better, log_worse) = both(Dual::log_sigmoid);
                better * (log_better + -(-e).ln_1p()) + worse * (log_worse + -e.ln())
            }
            LossType::NcaPair => {
                -chosen.log_sigmoid()
                    - (-chosen).log_sigmoid() * 0.5
                    - (-rejected).log_sigmoid() * 0.5
            }
            LossType::Robust => {
                let (right, wrong) = both(Dual::log_sigmoid);
                (right * -(1.0 - e) + wrong * e) * (1.0 / (1.0 - 2.0 * e))
            }
            LossType::BcoPair => -chosen.log_sigmoid() - (-rejected).log_sigmoid(),
            LossType::SppoHard => {
                let aim = 0.5 / beta;
                (self.chosen + -aim).square() + (self.rejected + aim).square()
            }
            LossType::ApoZero => -chosen.sigmoid() + 1.0 + rejected.sigmoid(),
            LossType::ApoDown => chosen.sigmoid() + (-margin.sigmoid() + 1.0),
            LossType::Discopop => {
                let share = (margin * (1.0 / config.discopop_tau)).sigmoid();
                -margin.log_sigmoid() * (-share + 1.0) + (-margin).exp() * share
            }
            LossType::Aot
            | LossType::AotUnpaired
            | LossType::Sft
            | LossType::Kto
            | LossType::ApoZeroUnpaired => return None,
        };
        Some(loss)
    }

    /// SimPO's loss, where the numbers are log-probabilities for each token.
    pub(super) fn simpo(&self, config: &PreferenceConfig) -> Dual {
        let margin = (self.chosen - self.rejected) * config.beta + -config.simpo_gamma;
        Self::logistic(config, margin)
    }

    /// ORPO's logarithm of the odds ratio, where the numbers are log-probabilities for each token.
    pub(super) fn log_odds(&self) -> Dual {
        let odds = |x: Dual| x - x.log_1_minus_exp();
        odds(self.chosen) - odds(self.rejected)
    }
}
