//! What the log of a run tells, as a whole.

use std::path::Path;

use super::chart::Chart;
use super::log::{LogRow, read_all};
use crate::error::TrainError;

/// The steps and the evaluations of a run, by its `log.jsonl`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// All steps.
    pub steps: Vec<HistoryStep>,
    /// After which step an evaluation was, and its loss.
    pub evaluations: Vec<(usize, f64)>,
}

/// What was measured in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct HistoryStep {
    /// The step, counted from 1.
    pub step: usize,
    /// Mean loss of the predicted tokens.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Norm of all gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens without padding a second.
    pub tokens_per_second: f64,
}

impl History {
    /// Of the run whose output folder this is.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let mut history = Self::default();
        for row in read_all(folder)? {
            match row {
                LogRow::Step {
                    step,
                    loss,
                    learning_rate,
                    grad_norm,
                    tokens_per_second,
                    ..
                } => history.steps.push(HistoryStep {
                    step,
                    loss,
                    learning_rate,
                    grad_norm,
                    tokens_per_second,
                }),
                LogRow::Eval { step, eval_loss } => history.evaluations.push((step, eval_loss)),
            }
        }
        Ok(history)
    }

    /// Charts as SVG, with what they show; none without steps.
    ///
    /// # Errors
    /// If one cannot be drawn.
    pub fn charts(&self) -> Result<Vec<(&'static str, String)>, TrainError> {
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        let evaluations = self.evaluations.iter();
        let evaluations: Vec<_> = evaluations
            .map(|(step, loss)| (*step as f64, *loss))
            .collect();
        type Value = fn(&HistoryStep) -> f64;
        let measured: [(&str, Value); 4] = [
            ("loss", |step| step.loss),
            ("learning rate", |step| step.learning_rate),
            ("gradient norm", |step| step.grad_norm),
            ("tokens a second", |step| step.tokens_per_second),
        ];
        let draw = |(name, value): (&'static str, Value)| {
            let beside = match name {
                "loss" => &evaluations[..],
                _ => &[],
            };
            let points = self
                .steps
                .iter()
                .map(|step| (step.step as f64, value(step)));
            let chart = Chart {
                name,
                steps: (&points.collect::<Vec<_>>(), "training"),
                beside: (beside, "evaluation"),
            };
            let svg = chart.draw().map_err(|e| TrainError::Plot(e.to_string()))?;
            Ok((name, svg))
        };
        measured.into_iter().map(draw).collect()
    }

    /// A table with a line for each step and each evaluation, in the order of the steps.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let number = |value: f64| value.to_string();
        let mut lines: Vec<(usize, String)> = Vec::new();
        for step in &self.steps {
            let values = [
                step.loss,
                step.learning_rate,
                step.grad_norm,
                step.tokens_per_second,
            ];
            let values = values.map(number).join(",");
            lines.push((step.step, format!("{},{values},", step.step)));
        }
        for (step, loss) in &self.evaluations {
            lines.push((*step, format!("{step},,,,,{loss}")));
        }
        lines.sort_by_key(|(step, _)| *step);
        let header = "step,loss,learning_rate,grad_norm,tokens_per_second,eval_loss";
        let lines = lines.iter().map(|(_, line)| line.as_str());
        let mut text = std::iter::once(header)
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_becomes_a_table_and_charts() {
        let folder = tempfile::tempdir().unwrap();
        let step = |step: usize| {
            format!(
                r#"{{"step":{step},"loss":2.5,"learning_rate":0.001,"grad_norm":1.5,"seconds":1,"tokens_per_second":20}}"#
            )
        };
        let rows = [
            r#"{"step":0,"eval_loss":3.5}"#.to_owned(),
            step(1),
            step(2),
            r#"{"step":2,"eval_loss":2.25}"#.to_owned(),
        ];
        std::fs::write(folder.path().join("log.jsonl"), rows.join("\n")).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!(
            history.to_csv(),
            "step,loss,learning_rate,grad_norm,tokens_per_second,eval_loss\n0,,,,,3.5\n\
             1,2.5,0.001,1.5,20,\n2,2.5,0.001,1.5,20,\n2,,,,,2.25\n"
        );
        let charts = history.charts().unwrap();
        let names: Vec<&str> = charts.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["loss", "learning rate", "gradient norm", "tokens a second"]
        );
        assert!(charts[0].1.contains("evaluation") && !charts[1].1.contains("evaluation"));
        assert_eq!(History::default().charts().unwrap(), []);
    }
}
