//! The report: Markdown, charts and JSON.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::generation::{self, GenerationRow};
use super::layer::{self, LayerRow};
use super::machine::Machine;
use super::merging::{self, MergeRow};
use super::options::Options;
use super::plot::Chart;
use super::rates::Rates;
use super::step::{self, StepRow};
use super::table::{Table, number};
use super::trend::{self, Trend};

/// Where the files go, beside the document.
const FOLDER: &str = "benchmarks";

/// What was measured.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    date: String,
    /// The state of the repository.
    commit: String,
    /// Arguments as they were typed.
    command: String,
    quick: bool,
    machine: Machine,
    /// Threads of all programs.
    threads: usize,
    rates: Rates,
    /// Versions of the libraries beside which qoft was measured.
    peft: Vec<String>,
    pub steps: Vec<StepRow>,
    pub generation: Vec<GenerationRow>,
    pub merges: Vec<MergeRow>,
    pub layers: Vec<LayerRow>,
    pub trend: Option<Trend>,
    /// Runs that failed, and why.
    pub failures: Vec<String>,
}

impl Report {
    /// A report without figures of any part.
    pub(super) fn new(bench: &Bench, options: &Options, threads: usize) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            date: chrono::Local::now().format("%Y-%m-%d").to_string(),
            commit: commit().unwrap_or_else(|| "unknown".into()),
            command: format!("cargo xtask {}", arguments.join(" ")),
            quick: options.quick,
            machine: bench.machine.clone(),
            threads,
            rates: bench.rates,
            peft: bench.peft.versions(),
            steps: Vec::new(),
            generation: Vec::new(),
            merges: Vec::new(),
            layers: Vec::new(),
            trend: None,
            failures: Vec::new(),
        }
    }

    /// What [`Self::write`] wrote below `docs`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no report.
    pub fn read(docs: &Path) -> Result<Self> {
        let path = docs.join(FOLDER).join("benchmarks.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// The document.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Benchmarks\n\n{}\n", self.conditions());
        let mut part = |title: &str, note: &str, tables: Vec<Table>| {
            text += &format!("\n## {title}\n\n{note}");
            let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
            text += &tables.join("\n");
        };
        if !self.steps.is_empty() {
            part("A training step", STEP_NOTE, step::tables(&self.steps));
        }
        if !self.generation.is_empty() {
            part("Generation", "", vec![generation::table(&self.generation)]);
        }
        if !self.merges.is_empty() {
            part("Merging", "", vec![merging::table(&self.merges)]);
        }
        if !self.layers.is_empty() {
            part("A layer", "", vec![layer::table(&self.layers)]);
        }
        if let Some(trend) = &self.trend {
            part("Depth and length", "", trend::tables(trend).into());
            for chart in self.charts() {
                text += &format!(
                    "\n![{} over {}]({FOLDER}/{})\n",
                    chart.y, chart.x, chart.file
                );
            }
        }
        if !self.failures.is_empty() {
            text += "\n## Failed\n\n";
            text.extend(self.failures.iter().map(|line| format!("- {line}\n")));
        }
        text
    }

    fn conditions(&self) -> String {
        let mut lines = vec![
            format!(
                "Measured on {} by one run of `{}`, commit {}; everybody can repeat it. The models \
                 are made as in [smollm2.md](smollm2.md) and [schemes.md](schemes.md). All figures \
                 are in [{FOLDER}/benchmarks.json]({FOLDER}/benchmarks.json).",
                self.date, self.command, self.commit
            ),
            String::new(),
            format!(
                "- Machine: {}. Threads used: {}.",
                self.machine, self.threads
            ),
            format!(
                "- Its rate of fused multiply-adds in f32, measured: {} GFLOP/s. Its rate of reading \
                 memory, measured: {} GB/s.",
                number(self.rates.flops / 1e9),
                number(self.rates.bytes / 1e9)
            ),
        ];
        if self.peft.is_empty() {
            lines.push("- PEFT was not measured: no interpreter was given (`--python`).".into());
        }
        lines.extend(self.peft.iter().map(|line| format!("- Beside it: {line}.")));
        if !self.peft.is_empty() && !self.machine.bf16 {
            lines.push("- The CPU does not multiply bf16, so PEFT was run in f32 only.".into());
        }
        if self.quick {
            lines.push("- **Tiny sizes (`--quick`): the figures say little.**".into());
        }
        lines.join("\n")
    }

    fn charts(&self) -> Vec<Chart> {
        let charts = self.trend.as_ref().map(trend::charts).unwrap_or_default();
        let drawn = |chart: &Chart| chart.series.iter().any(|series| !series.points.is_empty());
        charts.into_iter().filter(drawn).collect()
    }

    /// Writes `docs/benchmarks.md` and what it shows.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, root: &Path) -> Result<()> {
        let docs = root.join("docs");
        let folder = docs.join(FOLDER);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for chart in self.charts() {
            let svg = chart
                .svg()
                .map_err(|error| anyhow!("{}: {error}", chart.file))?;
            write(
                &folder,
                &chart.file,
                &svg.context("a chart without points")?,
            )?;
        }
        let json = serde_json::to_string_pretty(self)?;
        write(&folder, "benchmarks.json", &format!("{json}\n"))?;
        write(&docs, "benchmarks.md", &self.markdown())
    }
}

const STEP_NOTE: &str = "\
OFT blocks of 32 on all linear layers, AdamW, rows of exactly so many random tokens, all programs on
the same rows. The programs take turns; times and memory are medians over the runs, of the steps
after the first two of each. *Floor* is the least time, at the machine's rate of multiplications, for
the products with weights (forward and gradient of the input, the head among them) and those of
attention (of each token with those up to it, forward and gradients). Rotations and all else come on
top of it. The *start* is that of the program.

";

/// Writes a file; it is complete or as it was.
fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    use std::io::Write;
    let path = folder.join(name);
    let write = || -> Result<()> {
        let part = folder.join(format!(".{name}.part"));
        let mut file = std::fs::File::create(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, &path)?;
        Ok(())
    };
    write().with_context(|| path.display().to_string())
}

/// The commit that is checked out, with a mark if files differ from it.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}
