//! Reading data files, and what is said of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use qoft::models::{ModelConfig, ModelFolder};
use qoft::train::data::{
    AnswerTokens, DataFormat, DataRow, Dataset, DatasetReport, Rows, Split, rows_by_weights,
};
use qoft::train::tokenizer::Tokenizer;

use crate::args::{DataArg, DataArgs};
use crate::print::{errln, warnln};
use crate::{files, progress};

/// Tokens that a row keeps where none are said, in every command.
const MAX_LENGTH: usize = 1024;
/// The fewest tokens of which one is predicted.
const SHORTEST: usize = 2;

/// What rows are read for.
#[derive(Clone, Copy)]
pub struct For<'a> {
    /// Turns text into tokens.
    pub tokenizer: &'a Tokenizer,
    /// The model that gets them.
    pub model: &'a ModelConfig,
    /// The most tokens of a row; [`MAX_LENGTH`] if it is not given, and never more than the model
    /// sees.
    pub max_length: Option<usize>,
    /// How prompts and answers become tokens.
    pub answer_tokens: AnswerTokens,
    /// What the files of a folder are read for.
    pub split: Split,
}

impl For<'_> {
    /// The most tokens of a row.
    ///
    /// # Errors
    /// If rows would have nothing to predict.
    pub fn longest(&self) -> Result<usize> {
        let wanted = self.max_length.unwrap_or(MAX_LENGTH);
        ensure!(
            wanted >= SHORTEST,
            "--max-length {wanted}: a row needs at least {SHORTEST} tokens, since the first one is not predicted"
        );
        Ok(wanted.min(self.model.longest_sequence.unwrap_or(wanted)))
    }
}

/// Data, and what was found in each of its files or folders.
pub struct Read<R> {
    /// The rows.
    pub dataset: Rows<R>,
    reports: Vec<(PathBuf, DatasetReport)>,
    /// The rows that are taken of each, where weights say so.
    taken: Option<Vec<usize>>,
}

/// Reads a data file or folder with rows of any form for the model of a folder.
pub fn for_model(model: &ModelFolder, path: &Path, max_length: Option<usize>) -> Result<Dataset> {
    let tokenizer = files::tokenizer(model)?;
    let spec = model.spec()?;
    let reading = For {
        tokenizer: &tokenizer,
        model: spec.config(),
        max_length,
        answer_tokens: AnswerTokens::default(),
        split: Split::Train,
    };
    plain(path, reading)
}

/// Reads a data file or folder with rows of any form.
pub fn plain(path: &Path, reading: For) -> Result<Dataset> {
    one(path, &DataArgs::default(), reading)
}

/// Reads data files and folders, and mixes several by their weights.
pub fn read<R: DataRow>(
    data: &[DataArg],
    args: &DataArgs,
    reading: For,
    seed: u64,
) -> Result<Read<R>> {
    if let [
        DataArg {
            path,
            weight: Some(weight),
        },
    ] = data
    {
        bail!(
            "--data {}:{weight}: a weight is a share among several files or folders; --max-samples ROWS \
             takes a part of one",
            path.display()
        );
    }
    let (mut parts, mut reports) = (Vec::new(), Vec::new());
    for DataArg { path, weight } in data {
        let dataset = one::<R>(path, args, reading)?;
        reports.push((path.clone(), dataset.report.clone()));
        parts.push((dataset, *weight));
    }
    let sizes = parts.iter().map(|(rows, by)| (rows.report.rows, *by));
    let taken = rows_by_weights(&sizes.collect::<Vec<_>>());
    let dataset = Rows::mix(parts, seed).context("--data")?;
    if let Some(template) = &args.chat_template
        && reports.iter().all(|(_, report)| !may_have_messages(report))
    {
        warnln!("--chat-template {template}: it is not used, since no row has messages");
    }
    Ok(Read {
        dataset,
        reports,
        taken,
    })
}

/// Whether rows of such forms can be conversations.
fn may_have_messages(report: &DatasetReport) -> bool {
    let plain = [DataFormat::Text, DataFormat::TokenIds];
    report
        .formats
        .iter()
        .any(|(format, _)| !plain.contains(&format))
}

fn one<R: DataRow>(path: &Path, args: &DataArgs, reading: For) -> Result<Rows<R>> {
    let bar = progress::spinner();
    let mut options = args.options(reading.model.vocab_size)?;
    options.max_length = Some(reading.longest()?);
    options.answer_tokens = reading.answer_tokens;
    options.split = reading.split;
    let mut count = |rows: usize| {
        if rows.is_multiple_of(100) {
            bar.set_message(format!("{} rows read", progress::grouped(rows)));
            bar.tick();
        }
    };
    let cache = args.cache(size(path)).filter(|_| is_lasting(path));
    let dataset = match cache {
        None => Rows::load(path, reading.tokenizer, &options, Some(&mut count)),
        Some(cache) => Rows::load_cached(
            path,
            reading.tokenizer,
            &options,
            &cache,
            Some(&mut count),
            &mut |text| bar.suspend(|| warnln!("{text}")),
        ),
    };
    bar.finish_and_clear();
    Ok(dataset?)
}

/// Whether what a path leads to can be read more than once, which a pipe cannot.
pub fn is_lasting(path: &Path) -> bool {
    // What is wrong with a path is said where it is read.
    std::fs::metadata(path).map_or(true, |data| data.is_file() || data.is_dir())
}

/// The bytes of a file, or of the files in a folder.
fn size(path: &Path) -> u64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| of(&entry.path())).sum(),
        Err(_) => of(path),
    }
}

/// Says what the rows of a data file were taken for.
fn tell(path: &Path, report: &DatasetReport) {
    let formats: Vec<String> = match report.formats.iter().collect::<Vec<_>>()[..] {
        [(format, _)] => vec![format.to_string()],
        ref several => several
            .iter()
            .map(|(format, rows)| format!("{} {format}", progress::grouped(*rows)))
            .collect(),
    };
    errln!(
        "{}{}: {} rows ({}), {} tokens, {} of them learned",
        path.display(),
        of_folder(report),
        progress::grouped(report.rows),
        formats.join(", "),
        progress::grouped(report.tokens),
        progress::grouped(report.predicted)
    );
}

/// Which of a folder's files were read.
fn of_folder(report: &DatasetReport) -> String {
    let others = match report.other_files.len() {
        0 => String::new(),
        1 => format!("; {} is not read", report.other_files[0]),
        _ => format!("; {} are not read", report.other_files.join(", ")),
    };
    match report.files.is_empty() {
        true => String::new(),
        false => format!(" [{}{others}]", report.files.join(", ")),
    }
}

impl<R: DataRow> Read<R> {
    /// The rows, which are none of this value's then.
    pub fn take(&mut self) -> Rows<R> {
        std::mem::replace(&mut self.dataset, Rows::new([]))
    }

    /// Says what the rows were taken for.
    pub fn tell(&self) {
        for (path, report) in &self.reports {
            tell(path, report);
        }
        let taken = self.taken.iter().flatten();
        for ((path, report), taken) in self.reports.iter().zip(taken) {
            errln!(
                "{}: {} of its {} rows are taken, by the weights",
                path.display(),
                progress::grouped(*taken),
                progress::grouped(report.rows)
            );
        }
    }

    /// Tells what the data lost on the way in.
    pub fn report_losses(&self) {
        for (path, report) in &self.reports {
            report_losses(path, report);
        }
    }
}

/// Tells what a data file or folder lost on the way in.
pub fn report_losses(path: &Path, report: &DatasetReport) {
    if report.cut_rows > 0 {
        errln!(
            "{}: {} of {} rows were longer than {} tokens and lost {} tokens",
            path.display(),
            report.cut_rows,
            report.rows,
            progress::grouped(report.longest),
            progress::grouped(report.cut_tokens)
        );
    }
    if report.unread_bytes > 0 {
        errln!(
            "{}: {} bytes at the ends of very long rows were not even read as tokens",
            path.display(),
            progress::grouped(report.unread_bytes)
        );
    }
    if report.unpredictable_rows > 0 {
        let named: Vec<String> = report
            .unpredictable
            .iter()
            .map(ToString::to_string)
            .collect();
        let more = match report.unpredictable_rows - named.len() {
            0 => String::new(),
            more => format!(" and {} more", progress::grouped(more)),
        };
        errln!(
            "{}: {} of {} rows have nothing to predict: {}{more}",
            path.display(),
            report.unpredictable_rows,
            report.rows,
            named.join(", ")
        );
    }
    if report.rows_without_calls > 0 {
        warnln!(
            "{}: {} rows call functions, which the chat template does not write: their answers are learned \
             without the calls. --chat-template takes another template",
            path.display(),
            progress::grouped(report.rows_without_calls)
        );
    }
    if report.dropped_rows > 0 {
        errln!(
            "{}: {} rows had too many tokens and are left out",
            path.display(),
            progress::grouped(report.dropped_rows)
        );
    }
}
