//! Merging an adapter into each model.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Bench;
use super::outcome::Outcome;
use super::rows;
use super::table::{Table, number, ratio};
use super::training::Task;

/// Steps of the adapter's training; how long a merge takes does not depend on them.
const STEPS: usize = 3;

/// A model. Seconds from the files of model and adapter to those of the merged model.
#[derive(Debug, Deserialize, Serialize)]
pub struct MergeRow {
    pub model: String,
    pub qoft_dense: Outcome<f64>,
    pub qoft_same: Outcome<f64>,
    pub peft: Outcome<f64>,
}

/// Measures all models.
///
/// # Errors
///
/// If files cannot be written; a program that fails is a [`Outcome::Not`].
pub fn measure(bench: &mut Bench) -> Result<Vec<MergeRow>> {
    let models = bench.models.clone();
    let mut found = Vec::new();
    for model in &models {
        let work = bench.folder()?;
        let at = |name: &str| work.path().join(name);
        let shape = bench.sizes.depth_shape;
        let task = Task {
            model,
            data: rows::write(work.path(), STEPS * shape[0], shape[1], model.vocab_size)?,
            shape,
            steps: STEPS,
            gradient_checkpointing: false,
            compute_dtype: "f32",
        };
        let adapter = at("adapter");
        let trained = bench.qoft.train(&task, &adapter);
        let label = format!("merge: {}", model.name);
        let mut row = MergeRow {
            model: model.name.clone(),
            qoft_dense: Outcome::nothing(),
            qoft_same: Outcome::nothing(),
            peft: Outcome::nothing(),
        };
        if bench.failures.check(&label, trained).measured().is_some() {
            let mut timed = |what: &str, seconds: Result<f64>| {
                let seconds = bench.failures.check(&format!("{label}, {what}"), seconds);
                eprintln!("{label}, {what}: {} s", seconds.cell(|&s| number(s)));
                seconds
            };
            let merge = |dense, to| bench.qoft.merge(model, &adapter, &at(to), dense);
            let dense = merge(true, "dense").map(|finished| finished.seconds);
            row.qoft_dense = timed("dense", dense);
            let same = merge(false, "same").map(|finished| finished.seconds);
            row.qoft_same = timed("same scheme", same);
            row.peft = match bench.peft.merge_refusal(model) {
                Some(reason) => Outcome::Not(reason.into()),
                None => {
                    let merged = bench.peft.merge(model, &adapter, &at("peft"));
                    timed("PEFT", merged.map(|merged| merged.seconds))
                }
            };
        }
        found.push(row);
    }
    Ok(found)
}

/// The times.
pub fn table(found: &[MergeRow]) -> Table {
    let mut table = Table::new(
        "Time of a merge, from the files of model and adapter to those of the merged model. PEFT \
         merges into the scheme; the load of its libraries is not counted.",
        &[
            "model",
            "qoft, dense f32, s",
            "qoft, same scheme, s",
            "PEFT, s",
            "PEFT ÷ qoft, same scheme",
        ],
    );
    for row in found {
        let cell = |outcome: &Outcome<f64>| outcome.cell(|&seconds| number(seconds));
        let quotient = ratio(
            row.peft.measured().copied(),
            row.qoft_same.measured().copied(),
        );
        table.row([
            row.model.clone(),
            cell(&row.qoft_dense),
            cell(&row.qoft_same),
            cell(&row.peft),
            quotient,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_peft_its_columns_are_left_out() {
        let row = MergeRow {
            model: "nf4".into(),
            qoft_dense: Outcome::Measured(1.0),
            qoft_same: Outcome::Not("failed".into()),
            peft: Outcome::nothing(),
        };
        let text = table(&[row]).markdown();
        assert!(text.ends_with("| nf4 | 1.00 | failed |\n"), "{text}");
        assert!(!text.contains("÷"), "{text}");
    }
}
