//! What the log of a run tells, as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::chart::Chart;
use super::log::{LogRow, plain, read_all};
use crate::error::TrainError;

/// The steps and the evaluations of a run, by its `log.jsonl`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// All steps.
    pub steps: Vec<HistoryStep>,
    /// All evaluations.
    pub evaluations: Vec<HistoryEvaluation>,
}

/// What was measured in a step.
#[derive(Debug, Clone, PartialEq)]
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
    /// What was measured beside the loss, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// What was measured in an evaluation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HistoryEvaluation {
    /// The step that it is after.
    pub step: usize,
    /// Its loss.
    pub loss: f64,
    /// What was measured beside it, by the names that steps have for that.
    pub metrics: BTreeMap<String, f64>,
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
                    metrics,
                    ..
                } => history.steps.push(HistoryStep {
                    step,
                    loss,
                    learning_rate,
                    grad_norm,
                    tokens_per_second,
                    metrics,
                }),
                LogRow::Eval {
                    step,
                    eval_loss,
                    metrics,
                } => history.evaluations.push(HistoryEvaluation {
                    step,
                    loss: eval_loss,
                    metrics: plain(&metrics),
                }),
            }
        }
        Ok(history)
    }

    /// Charts as SVG, with what they show; none without steps.
    ///
    /// # Errors
    /// If one cannot be drawn.
    pub fn charts(&self) -> Result<Vec<(String, String)>, TrainError> {
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        let evaluations = self.evaluations.iter();
        let losses: Vec<_> = evaluations.map(|e| (e.step as f64, e.loss)).collect();
        type Value = fn(&HistoryStep) -> f64;
        let measured: [(&str, Value); 4] = [
            ("loss", |step| step.loss),
            ("learning rate", |step| step.learning_rate),
            ("gradient norm", |step| step.grad_norm),
            ("tokens a second", |step| step.tokens_per_second),
        ];
        let mut charts = Vec::new();
        for (name, value) in measured {
            let beside = if name == "loss" { &losses[..] } else { &[] };
            let steps = self.steps.iter();
            let points: Vec<_> = steps.map(|s| (s.step as f64, value(s))).collect();
            charts.push((name.to_owned(), draw(name, &points, beside)?));
        }
        for name in self.metrics() {
            let of = |step: usize, metrics: &BTreeMap<String, f64>| {
                metrics.get(name).map(|value| (step as f64, *value))
            };
            let (steps, evaluations) = (self.steps.iter(), self.evaluations.iter());
            let points: Vec<_> = steps.filter_map(|s| of(s.step, &s.metrics)).collect();
            let beside: Vec<_> = evaluations.filter_map(|e| of(e.step, &e.metrics)).collect();
            charts.push((name.to_owned(), draw(name, &points, &beside)?));
        }
        Ok(charts)
    }

    /// The names of what was measured in steps.
    fn metrics(&self) -> BTreeSet<&str> {
        let names = self.steps.iter().flat_map(|step| step.metrics.keys());
        names.map(String::as_str).collect()
    }

    /// A table with a line for each step and each evaluation, in the order of the steps.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let number = |value: f64| value.to_string();
        let of_evaluations = self.evaluations.iter().flat_map(|e| e.metrics.keys());
        let of_evaluations: BTreeSet<&String> = of_evaluations.collect();
        let cells = |names: &mut dyn Iterator<Item = &str>, metrics: &BTreeMap<String, f64>| {
            let cell = |name| metrics.get(name).copied().map_or(String::new(), number);
            names
                .map(|name| format!(",{}", cell(name)))
                .collect::<String>()
        };
        let (steps, none) = (self.metrics(), BTreeMap::new());
        let mut lines: Vec<(usize, String)> = Vec::new();
        for step in &self.steps {
            let values = [
                step.loss,
                step.learning_rate,
                step.grad_norm,
                step.tokens_per_second,
            ];
            let values = values.map(number).join(",");
            let mut line = format!("{},{values},", step.step);
            line += &cells(&mut steps.iter().copied(), &step.metrics);
            line += &cells(&mut of_evaluations.iter().map(|name| name.as_str()), &none);
            lines.push((step.step, line));
        }
        for evaluation in &self.evaluations {
            let HistoryEvaluation {
                step,
                loss,
                metrics,
            } = evaluation;
            let mut line = format!("{step},,,,,{loss}");
            line += &cells(&mut steps.iter().copied(), &none);
            line += &cells(
                &mut of_evaluations.iter().map(|name| name.as_str()),
                metrics,
            );
            lines.push((*step, line));
        }
        lines.sort_by_key(|(step, _)| *step);
        let mut text = "step,loss,learning_rate,grad_norm,tokens_per_second,eval_loss".to_owned();
        text.extend(steps.iter().map(|name| format!(",{name}")));
        text.extend(of_evaluations.iter().map(|name| format!(",eval_{name}")));
        text.push('\n');
        for (_, line) in lines {
            text += &line;
            text.push('\n');
        }
        text
    }
}

fn draw(name: &str, steps: &[(f64, f64)], beside: &[(f64, f64)]) -> Result<String, TrainError> {
    let chart = Chart {
        name,
        steps: (steps, "training"),
        beside: (beside, "evaluation"),
    };
    chart.draw().map_err(|e| TrainError::Plot(e.to_string()))
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
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["loss", "learning rate", "gradient norm", "tokens a second"]
        );
        assert!(charts[0].1.contains("evaluation") && !charts[1].1.contains("evaluation"));
        assert_eq!(History::default().charts().unwrap(), []);

        let rows = [
            step(1).replace("}", r#","a":0.5}"#),
            r#"{"step":1,"eval_loss":2.25,"eval_a":0.25}"#.to_owned(),
        ];
        std::fs::write(folder.path().join("log.jsonl"), rows.join("\n")).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!(
            history.to_csv(),
            "step,loss,learning_rate,grad_norm,tokens_per_second,eval_loss,a,eval_a\n\
             1,2.5,0.001,1.5,20,,0.5,\n1,,,,,2.25,,0.25\n"
        );
        let charts = history.charts().unwrap();
        assert!(charts[4].0 == "a" && charts[4].1.contains("evaluation"));
    }
}
