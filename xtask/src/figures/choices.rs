//! Losses by block size and learning rate, as `scripts/choices.py` measured them.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Figures;

#[derive(Deserialize)]
struct Run {
    block: usize,
    rate: f64,
    steps: usize,
    trained: usize,
    loss_before: f64,
    loss: f64,
}

/// The table of `docs/tutorial.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let runs: Vec<Run> = super::results(docs, "choices.json")?;
    let first = runs.first().context("choices.json has no run")?;
    Ok(Figures::from([
        ("choices", table(&runs)),
        ("choices-steps", first.steps.to_string()),
        ("choices-before", format!("{:.2}", first.loss_before)),
    ]))
}

/// A line for each rate, a column for each block size.
fn table(runs: &[Run]) -> String {
    let mut blocks: Vec<(usize, usize)> = runs.iter().map(|run| (run.block, run.trained)).collect();
    blocks.dedup();
    let mut rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let of = |block: usize, rate: f64| {
        let mut found = runs
            .iter()
            .filter(|run| run.block == block && run.rate == rate);
        found
            .next()
            .map_or_else(String::new, |run| format!("{:.2}", run.loss))
    };
    let mut text = "\n\n| learning rate".to_owned();
    for (block, trained) in &blocks {
        text += &format!(
            " | block size {block} ({:.0} K parameters)",
            *trained as f64 / 1e3
        );
    }
    text += &format!(" |\n|---{}|\n", "|---".repeat(blocks.len()));
    for rate in rates {
        text += &format!("| {rate}");
        for (block, _) in &blocks {
            text += &format!(" | {}", of(*block, rate));
        }
        text += " |\n";
    }
    text + "\n"
}
