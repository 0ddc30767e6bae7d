//! `qoft data preview`.

use anyhow::Result;
use qoft::Registries;
use qoft::core::write_file;
use qoft::train::data::{
    DataRow, Dataset, Example, IGNORED, LengthHistogram, Preference, Rows, Split,
};
use qoft::train::preference::{PreferenceConfig, PreferenceData};
use qoft::train::tokenizer::Tokenizer;

use crate::args::{DataArg, PreferenceArgs, PreviewArgs, answer_tokens};
use crate::print::{self, outln};
use crate::{data, files, progress, vocabulary};

/// Ranges of lengths that are shown.
const BINS: usize = 16;
/// The longest bar.
const BAR: usize = 40;
/// Chooses rows where several files have weights.
const SEED: u64 = 42;

/// Shows rows as tokens, and how long all of them are.
pub fn run(args: &PreviewArgs, registries: &Registries) -> Result<()> {
    if let Some(plot) = &args.plot {
        files::check_picture(plot)?;
    }
    let folder = files::open(registries, &args.model)?;
    let folder = vocabulary::with_new_tokens(folder, &args.new_tokens.tokens(), None)?.model;
    let tokenizer = args.reading.tokenizer(files::tokenizer(&folder)?)?;
    let spec = folder.spec()?;
    let stage = PreferenceArgs {
        stage: args.stage.clone(),
        ..PreferenceArgs::default()
    };
    let preference = stage.config()?;
    let reading = data::For {
        tokenizer: &tokenizer,
        model: spec.config(),
        max_length: args.max_length,
        answer_tokens: answer_tokens(preference.as_ref()),
        split: Split::Train,
    };
    match preference {
        None => show_examples(args, reading),
        Some(config) => show_preferences(args, &config, reading),
    }
}

fn show_examples(args: &PreviewArgs, reading: data::For) -> Result<()> {
    let sources = DataArg::all(&args.data)?;
    let read = data::read::<Example>(&sources, &args.reading, reading, SEED)?;
    read.tell();
    let dataset = &read.dataset;
    for (index, example) in dataset.examples.iter().take(args.rows).enumerate() {
        show(&format!("row {}", index + 1), example, reading.tokenizer)?;
    }
    summary(dataset);
    packed(dataset, reading.longest()?);
    read.report_losses();
    plot(args, dataset)
}

fn show_preferences(
    args: &PreviewArgs,
    config: &PreferenceConfig,
    reading: data::For,
) -> Result<()> {
    let sources = DataArg::all(&args.data)?;
    let mut read = data::read::<Preference>(&sources, &args.reading, reading, SEED)?;
    read.tell();
    let dataset = PreferenceData::new(read.take(), config)?.rows;
    for (index, row) in dataset.examples.iter().take(args.rows).enumerate() {
        let names: &[&str] = match row {
            Preference::Judged {
                desirable: true, ..
            } => &["good"],
            Preference::Judged { .. } => &["bad"],
            _ => &["chosen", "rejected"],
        };
        for (name, example) in names.iter().zip(row.parts()) {
            let title = format!("row {}, {name}", index + 1);
            show(&title, example, reading.tokenizer)?;
        }
    }
    summary(&dataset);
    read.report_losses();
    plot(args, &dataset)
}

/// Draws the lengths, if that is wanted.
fn plot<R: DataRow>(args: &PreviewArgs, dataset: &Rows<R>) -> Result<()> {
    if let Some(path) = &args.plot {
        let svg = LengthHistogram::new(dataset, 4 * BINS).to_svg()?;
        write_file(path, svg.as_bytes())?;
        outln!("the lengths are drawn in {}", path.display());
    }
    Ok(())
}

/// One row, with what is learned in another color, or between brackets where there are no colors.
fn show(title: &str, example: &Example, tokenizer: &Tokenizer) -> Result<()> {
    outln!(
        "--- {title}: {} tokens, {} of them learned",
        progress::grouped(example.input_ids.len()),
        progress::grouped(example.predicted())
    );
    if !tokenizer.has_vocabulary() {
        outln!("{:?}", example.input_ids);
        return Ok(());
    }
    let is_learned = |at: usize| at > 0 && example.labels[at] != IGNORED;
    let mut parts = Vec::new();
    let mut start = 0;
    for at in 1..=example.input_ids.len() {
        if at == example.input_ids.len() || is_learned(at) != is_learned(start) {
            let text = tokenizer.decode(&example.input_ids[start..at], false)?;
            parts.push((is_learned(start), text));
            start = at;
        }
    }
    print::painted(&parts);
    Ok(())
}

/// What all rows come to.
fn summary<R: DataRow>(dataset: &Rows<R>) {
    let report = &dataset.report;
    let rows = report.rows.max(1);
    let lengths = dataset.examples.iter().map(DataRow::longest);
    outln!("---");
    outln!(
        "{} rows, {} tokens, {} of them learned; {:.0} tokens in a row, {} in the longest",
        progress::grouped(report.rows),
        progress::grouped(report.tokens),
        progress::grouped(report.predicted),
        lengths.sum::<usize>() as f64 / rows as f64,
        progress::grouped(report.longest)
    );
    let histogram = LengthHistogram::new(dataset, BINS);
    let most = histogram.bins.iter().map(|(_, rows)| *rows).max();
    let most = most.unwrap_or(0).max(1);
    for (lengths, rows) in &histogram.bins {
        let bar = "#".repeat((rows * BAR).div_ceil(most));
        outln!(
            "{:>7} to {:>7}  {bar:BAR$}  {}",
            lengths.start,
            lengths.end - 1,
            progress::grouped(*rows)
        );
    }
}

/// How well rows could be packed.
fn packed(dataset: &Dataset, longest: usize) {
    let report = &dataset.report;
    let packed = dataset.packed_rows(longest).max(1);
    outln!(
        "packed into rows of {} tokens: {} rows, {:.1} % of them filled",
        progress::grouped(longest),
        progress::grouped(packed),
        100.0 * report.tokens as f64 / (packed * longest.max(1)) as f64
    );
}
