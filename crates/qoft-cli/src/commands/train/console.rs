//! A run on the terminal.

use std::collections::BTreeMap;
use std::path::PathBuf;

use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use qoft::train::train::{Observer, StepReport, Summary, TensorBoard, Trainer};
use qoft::train::{Evaluation, TrainModel};

use crate::args::RunOptions;
use crate::print::{errln, warnln};
use crate::progress;
use crate::stop::{self, Graceful};

/// What lies beside the adapter of a run from its beginning.
#[derive(Clone, Copy)]
pub struct Beside<'a> {
    /// The options of the run.
    pub options: &'a RunOptions,
    /// The folder with the tokenizer.
    pub tokenizer: &'a Path,
}

impl Beside<'_> {
    fn write(self, folder: &Path) -> Result<()> {
        self.options.write(folder)?;
        Ok(qoft::copy_tokenizer(self.tokenizer, folder)?)
    }
}

/// Runs a trainer with a progress bar. A signal stops it when it has saved what it has. Once
/// everything is checked, `beside` is written where its adapter will be, and with `tensorboard`
/// its event files are begun.
pub fn follow<M: TrainModel>(
    trainer: &Trainer<M::Data>,
    model: M,
    beside: Option<Beside>,
    tensorboard: bool,
) -> Result<(M, Summary)> {
    let _ends_by_itself = Graceful::begin();
    let bar = progress::bar_beside_lines("training", trainer.total_steps());
    let mut events = Console {
        bar: bar.clone(),
        beside,
        tensorboard,
        board: None,
        prefers: trainer.config.preference.is_some(),
        folder: trainer.folder.path().to_owned(),
    };
    let result = trainer.run(model, &mut events, stop::requested());
    bar.finish_and_clear();
    let board = events.board.as_ref();
    if let Some(error) = board.and_then(TensorBoard::failure) {
        warnln!("{error}");
    }
    Ok(result?)
}

/// Shows a run on the terminal.
struct Console<'a> {
    bar: ProgressBar,
    beside: Option<Beside<'a>>,
    tensorboard: bool,
    board: Option<TensorBoard>,
    /// Whether preferences are learned.
    prefers: bool,
    folder: PathBuf,
}

impl Observer for Console<'_> {
    fn begins(&mut self, done: usize, total: usize) {
        if done > 0 && done < total {
            self.line(&format!("going on after step {done} of {total}"));
        }
        self.bar.set_position(done as u64);
        let written = self.beside.map_or(Ok(()), |b| b.write(&self.folder));
        if let Err(error) = written {
            self.warning(&error.to_string());
        }
        if self.tensorboard {
            match TensorBoard::create(&self.folder) {
                Ok(board) => self.board = Some(board),
                Err(error) => self.warning(&error.to_string()),
            }
        }
    }

    fn step(&mut self, report: &StepReport) {
        if let Some(board) = &mut self.board {
            board.step(report);
        }
        self.bar.set_position(report.step as u64);
        let eta = report.eta.as_secs();
        self.bar.set_message(format!(
            "loss {:.4}  {:.0} tokens/s  {}:{:02} left",
            report.loss,
            report.tokens_per_second,
            eta / 60,
            eta % 60
        ));
        if report.log {
            self.line(&format!(
                "step {}/{}  loss {:.4}{}  learning rate {:.2e}  grad norm {:.3}  {:.0} tokens/s",
                report.step,
                report.total,
                report.loss,
                preferred(&report.metrics),
                report.lr,
                report.grad_norm,
                report.tokens_per_second
            ));
        }
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        if let Some(board) = &mut self.board {
            board.eval(step, evaluation);
        }
        let more = match self.prefers {
            true => preferred(&evaluation.metrics),
            false => format!(
                "  perplexity {}",
                progress::perplexity(evaluation.perplexity, 2)
            ),
        };
        self.line(&format!(
            "step {step}  evaluation loss {:.4}{more}",
            evaluation.loss
        ));
    }

    fn saved(&mut self, folder: &Path) {
        self.line(&format!("saved {}", folder.display()));
    }

    fn warning(&mut self, text: &str) {
        self.bar.suspend(|| warnln!("{text}"));
    }
}

/// How well preferences are learned: for each pair how far the rewards are apart, and how often the better
/// answer has the higher one.
fn preferred(metrics: &BTreeMap<String, f64>) -> String {
    let shown = [
        ("rewards/margins", "margin"),
        ("rewards/accuracies", "accuracy"),
    ];
    let shown = shown.iter().filter_map(|(name, word)| {
        let value = metrics.get(*name)?;
        Some(format!("  {word} {value:.3}"))
    });
    shown.collect()
}

impl Console<'_> {
    /// A line above the bar, also where stderr is a file.
    fn line(&self, text: &str) {
        self.bar.suspend(|| errln!("{text}"));
    }
}
