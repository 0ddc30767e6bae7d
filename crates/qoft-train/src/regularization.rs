//! What training does against learning by heart.

use crate::error::TrainError;

/// What training does against learning by heart. Evaluations do without.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Regularization {
    /// How much of the probability that is asked for is spread over the whole vocabulary.
    pub label_smoothing: f64,
    /// How much noise is added to embeddings: numbers up to it, divided by the root of the tokens of a row
    /// times the hidden size.
    pub embedding_noise: f64,
}

impl Regularization {
    /// Both of it.
    #[must_use]
    pub fn new(label_smoothing: f64, embedding_noise: f64) -> Self {
        Self {
            label_smoothing,
            embedding_noise,
        }
    }

    /// Fails if there is anything to do.
    pub(crate) fn refuse(self) -> Result<(), TrainError> {
        let wanted = [
            ("label_smoothing_factor", self.label_smoothing),
            ("neftune_noise_alpha", self.embedding_noise),
        ];
        match wanted.iter().find(|(_, value)| *value != 0.0) {
            None => Ok(()),
            Some((key, _)) => Err(TrainError::Config {
                key,
                reason: "this model cannot do that".into(),
            }),
        }
    }
}
