//! What merges keep, as `scripts/merge_table.py` measured it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Figures;

/// A model with an adapter, merged in several ways.
#[derive(Deserialize)]
struct Measured {
    model: String,
    /// Losses, one for each of [`TEXTS`].
    base: Vec<f64>,
    adapted: Vec<f64>,
    dense: Outcome,
    nearest: Outcome,
    calibrated: Outcome,
}

/// A merge, or why there is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Merged(Merge),
    Failed {
        #[serde(rename = "error")]
        _error: String,
    },
}

#[derive(Deserialize)]
struct Merge {
    loss: Vec<f64>,
    relative_error: f64,
    change: f64,
    kept_weights: f64,
    kept_outputs: Option<f64>,
    seconds: f64,
}

impl Outcome {
    /// A part of the merge as it stands in a table.
    fn cell(&self, part: impl Fn(&Merge) -> Option<String>) -> String {
        match self {
            Self::Merged(merge) => part(merge).unwrap_or_default(),
            Self::Failed { .. } => "–".into(),
        }
    }
}

/// Names in the file, what documents call the model, and whose adapter it has.
const ROWS: &[[&str; 3]] = &[
    ["int8", "LLM.int8", "itself"],
    ["eetq", "EETQ, sm80", "LLM.int8"],
    ["inc-fp8", "INC FP8", "LLM.int8"],
    ["nf4", "nf4, double quantization", "itself"],
    ["hqq4", "HQQ 4 bit, groups of 64", "LLM.int8"],
    ["hqq2", "HQQ 2 bit, groups of 16", "itself"],
    ["awq4", "AWQ, groups of 64", "itself"],
    ["gptq4", "GPTQ 4 bit, groups of 64", "itself"],
    ["aqlm2x8", "AQLM 2x8, codebooks fitted", "LLM.int8"],
    ["aqlm2x8-kept", "AQLM 2x8, codebooks kept", "LLM.int8"],
    ["nf4-30", "nf4, 30 steps at 5e-5", "itself"],
    ["gptq4-30", "GPTQ 4 bit, 30 steps at 5e-5", "itself"],
];
const TEXTS: [&str; 2] = ["as trained", "Austen"];

/// The tables of `docs/merging.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let measured: Vec<Measured> = super::results(docs, "merges.json")?;
    let row = |[name, title, adapter]: &[&'static str; 3]| {
        let found = measured.iter().find(|found| found.model == *name);
        let found = found.with_context(|| format!("merges.json has no `{name}`"))?;
        Ok((*title, *adapter, found))
    };
    let rows: Vec<_> = ROWS.iter().map(row).collect::<Result<_>>()?;

    let mut kept = "\n\n| model | adapter of | change | nearest codes: error | kept | calibrated: \
                    error | kept | kept of outputs | s |\n|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut losses = "\n\n| model | text | base | adapted | merged, dense | nearest codes | \
                      calibrated |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (title, adapter, found) in rows {
        let error = |merge: &Merge| Some(percent(merge.relative_error));
        let weights = |merge: &Merge| Some(percent(merge.kept_weights));
        let cells = [
            title.to_owned(),
            adapter.to_owned(),
            found.dense.cell(|merge| Some(percent(merge.change))),
            found.nearest.cell(error),
            found.nearest.cell(weights),
            found.calibrated.cell(error),
            found.calibrated.cell(weights),
            found
                .calibrated
                .cell(|merge| merge.kept_outputs.map(percent)),
            found
                .calibrated
                .cell(|merge| Some(format!("{:.0}", merge.seconds))),
        ];
        kept += &format!("| {} |\n", cells.join(" | "));
        for (text, name) in TEXTS.iter().enumerate() {
            let loss = |losses: &[f64]| losses.get(text).map(|loss| format!("{loss:.4}"));
            let merged = |outcome: &Outcome| outcome.cell(|merge| loss(&merge.loss));
            let cells = [
                if text == 0 {
                    title.to_owned()
                } else {
                    String::new()
                },
                (*name).to_owned(),
                loss(&found.base).unwrap_or_default(),
                loss(&found.adapted).unwrap_or_default(),
                merged(&found.dense),
                merged(&found.nearest),
                merged(&found.calibrated),
            ];
            losses += &format!("| {} |\n", cells.join(" | "));
        }
    }
    Ok(Figures::from([
        ("merges-kept", kept + "\n"),
        ("merges-losses", losses + "\n"),
    ]))
}

/// A share in percent, with a digit after the point where it is small.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent.abs() {
        0.0..0.05 => "0 %".into(),
        0.05..10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn small_shares_have_a_digit_more() {
        let shares = [0.0, -0.0002, 0.0125, -0.0125, 0.098, 0.5, 1.0];
        let texts = ["0 %", "0 %", "1.2 %", "-1.2 %", "9.8 %", "50 %", "100 %"];
        assert_eq!(shares.map(percent), texts);
    }
}
