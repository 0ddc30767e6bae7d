//! What the shapes of learning rates leave open: transformers' `lr_scheduler_kwargs`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::scheduler_kind::SchedulerKind;

/// Options of a [`SchedulerKind`], each of which counts for some of them only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// Waves of a cosine: 0.5 goes down once. For `cosine_with_restarts`, how often it goes down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cycles: Option<f64>,
    /// The lowest learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// The lowest learning rate as a share of the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_rate: Option<f64>,
    /// The first learning rate as a share of the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_lr_rate: Option<f64>,
    /// The last learning rate of `polynomial`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_end: Option<f64>,
    /// The power of `polynomial`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// The steps by which `inverse_sqrt` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timescale: Option<usize>,
    /// Steps at the end in which the learning rate goes down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decay_steps: Option<usize>,
    /// Steps before these in which it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_stable_steps: Option<usize>,
    /// How it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_type: Option<Curve>,
    /// How it goes down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_type: Option<Curve>,
    /// The lowest learning rate as a share of the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_ratio: Option<f64>,
}

/// How a learning rate goes from one value to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Curve {
    /// On a line.
    Linear,
    /// On half a cosine wave.
    Cosine,
    /// By one minus the square root.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// Where `polynomial` ends by default.
const LR_END: f64 = 1e-7;

impl SchedulerOptions {
    /// Checks that the options are those of the kind, and that none is missing.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, kind: SchedulerKind, learning_rate: f64) -> Result<(), String> {
        let allowed: &[&str] = match kind {
            SchedulerKind::Linear | SchedulerKind::Constant => &[],
            SchedulerKind::Cosine | SchedulerKind::CosineWithRestarts => &["num_cycles"],
            SchedulerKind::CosineWithMinLr => &["num_cycles", "min_lr", "min_lr_rate"],
            SchedulerKind::CosineWarmupWithMinLr => {
                &["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"]
            }
            SchedulerKind::Polynomial => &["lr_end", "power"],
            SchedulerKind::InverseSqrt => &["timescale"],
            SchedulerKind::WarmupStableDecay => &[
                "num_decay_steps",
                "num_stable_steps",
                "warmup_type",
                "decay_type",
                "min_lr_ratio",
                "num_cycles",
            ],
        };
        let given = serde_json::to_value(self).map_err(|e| e.to_string())?;
        let mut given = given.as_object().into_iter().flatten();
        if let Some((name, _)) = given.find(|(name, _)| !allowed.contains(&name.as_str())) {
            return Err(match allowed {
                [] => format!("`{name}`: this scheduler has no options"),
                _ => format!("`{name}`: this scheduler has {}", allowed.join(", ")),
            });
        }
        self.check_numbers()?;
        match kind {
            SchedulerKind::CosineWithMinLr | SchedulerKind::CosineWarmupWithMinLr => {
                match (self.min_lr, self.min_lr_rate) {
                    (None, None) => Err("one of `min_lr` and `min_lr_rate` is needed".into()),
                    (Some(_), Some(_)) => {
                        Err("only one of `min_lr` and `min_lr_rate` can be given".into())
                    }
                    _ => Ok(()),
                }
            }
            SchedulerKind::WarmupStableDecay if self.num_decay_steps.is_none() => {
                Err("`num_decay_steps` is needed".into())
            }
            SchedulerKind::Polynomial if learning_rate <= self.lr_end() => Err(format!(
                "`lr_end` ({}) must be below the learning rate ({learning_rate})",
                self.lr_end()
            )),
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), String> {
        let numbers = [
            ("num_cycles", self.num_cycles),
            ("min_lr", self.min_lr),
            ("min_lr_rate", self.min_lr_rate),
            ("warmup_lr_rate", self.warmup_lr_rate),
            ("lr_end", self.lr_end),
            ("power", self.power),
            ("min_lr_ratio", self.min_lr_ratio),
        ];
        for (name, value) in numbers {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
                return Err(format!("`{name}`: must be a number from 0 on, not {value}"));
            }
        }
        match self.timescale {
            Some(0) => Err("`timescale`: must be at least 1".into()),
            _ => Ok(()),
        }
    }

    pub(super) fn lr_end(&self) -> f64 {
        self.lr_end.unwrap_or(LR_END)
    }

    /// The lowest factor.
    pub(super) fn minimum(&self, learning_rate: f64) -> f64 {
        match self.min_lr {
            Some(rate) => rate / learning_rate,
            None => self.min_lr_rate.or(self.min_lr_ratio).unwrap_or(0.0),
        }
    }
}

impl fmt::Display for SchedulerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// As [`fmt::Display`] writes it: JSON.
impl FromStr for SchedulerOptions {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_another_kind_and_missing_ones_are_named() {
        let check = |kind, text: &str| {
            let options: SchedulerOptions = text.parse().unwrap();
            options.check(kind, 0.1).map_err(|error| error.to_string())
        };
        let says = |kind, text: &str, needle: &str| {
            let error = check(kind, text).unwrap_err();
            assert!(error.contains(needle), "{error}");
        };
        use SchedulerKind as Kind;
        check(Kind::Cosine, r#"{"num_cycles": 2}"#).unwrap();
        says(Kind::Linear, r#"{"power": 2}"#, "no options");
        says(Kind::Cosine, r#"{"min_lr": 0.1}"#, "has num_cycles");
        says(Kind::CosineWithMinLr, "{}", "is needed");
        let both = r#"{"min_lr": 0.1, "min_lr_rate": 0.1}"#;
        says(Kind::CosineWithMinLr, both, "only one");
        says(Kind::WarmupStableDecay, "{}", "`num_decay_steps` is needed");
        says(
            Kind::Polynomial,
            r#"{"lr_end": 0.2}"#,
            "below the learning rate",
        );
        says(Kind::Polynomial, r#"{"power": -1}"#, "`power`");
        says(Kind::InverseSqrt, r#"{"timescale": 0}"#, "`timescale`");
        assert!("{\"pwer\": 2}".parse::<SchedulerOptions>().is_err());
        let curve: SchedulerOptions = r#"{"decay_type":"1-sqrt"}"#.parse().unwrap();
        assert_eq!(curve.to_string(), r#"{"decay_type":"1-sqrt"}"#);
    }
}
