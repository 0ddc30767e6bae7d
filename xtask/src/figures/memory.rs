//! Peak memory of training steps, as `scripts/memory_table.py` measured it.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::Figures;

#[derive(Deserialize)]
struct Run {
    model: String,
    rows: usize,
    tokens: usize,
    options: String,
    peak_mib: f64,
    anonymous_mib: f64,
}

impl Run {
    /// What of the peak is files: the sampled largest sums were not there at once.
    fn files_mib(&self) -> f64 {
        self.peak_mib - self.anonymous_mib
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(' ').any(|given| given == option)
    }
}

const CHECKPOINTING: &str = "--gradient-checkpointing";
const BF16: &str = "bf16";
/// Large models, and what tables call them.
const LARGE: [(&str, &str); 2] = [
    ("llama-2-7b-synthetic", "Llama-2-7B, all layers"),
    ("30b-a3b-synthetic", "Qwen3-30B-A3B, attention"),
];

/// The tables of `docs/memory.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let runs: Vec<Run> = super::results(docs, "memory.json")?;
    let is_large = |run: &&Run| LARGE.iter().any(|(model, _)| *model == run.model);
    let (large, small): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(is_large);
    let files = small.iter().map(|run| run.files_mib());
    let [least, most] = [f64::min, f64::max].map(|pick| files.clone().reduce(pick));
    let files = least
        .zip(most)
        .map(|(least, most)| format!("{least:.0} to {most:.0}"));
    Ok(Figures::from([
        ("memory", by_options(&small)),
        ("memory-files", files.unwrap_or_default()),
        ("memory-large", large_model(&large)),
    ]))
}

/// A line for each shape, a column for each choice of options.
fn by_options(runs: &[&Run]) -> String {
    let mut shapes: Vec<(usize, usize)> = runs.iter().map(|run| (run.rows, run.tokens)).collect();
    shapes.sort_by_key(|&(rows, tokens)| (std::cmp::Reverse(rows), tokens));
    shapes.dedup();
    let mut text =
        "\n\n| rows × tokens | no option | bf16 | checkpointing | both |\n|---|---|---|---|---|\n"
            .to_owned();
    for shape in shapes {
        text += &format!("| {} × {}", shape.0, shape.1);
        for (checkpointing, bf16) in [(false, false), (false, true), (true, false), (true, true)] {
            let run = runs.iter().find(|run| {
                (run.rows, run.tokens) == shape
                    && (run.has(CHECKPOINTING), run.has(BF16)) == (checkpointing, bf16)
            });
            let peak = run.map(|run| format!("{:.0}", run.peak_mib));
            text += &format!(" | {}", peak.unwrap_or_default());
        }
        text += " |\n";
    }
    text + "\n"
}

fn large_model(runs: &[&Run]) -> String {
    let mut text =
        "\n\n| model, trained layers | rows × tokens | options | peak | anonymous | files |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let named = LARGE.iter().flat_map(|&(model, name)| {
        let runs = runs.iter().filter(move |run| run.model == model);
        runs.map(move |run| (name, run))
    });
    for (name, run) in named {
        let options = match (run.has(CHECKPOINTING), run.has(BF16)) {
            (false, false) => "none",
            (true, false) => "checkpointing",
            (false, true) => BF16,
            (true, true) => "both",
        };
        text += &format!(
            "| {name} | {} × {} | {options} | {:.0} | {:.0} | {:.0} |\n",
            run.rows,
            run.tokens,
            run.peak_mib,
            run.anonymous_mib,
            run.files_mib()
        );
    }
    text + "\n"
}
