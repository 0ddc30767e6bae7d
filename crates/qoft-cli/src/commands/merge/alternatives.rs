//! What else can be done with an adapter that a merge would round away, measured on some layers.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, anyhow};
use qoft::core::kernels::{FloatFormat, Matrix};
use qoft::core::{CodeSearch, Error, Keys, Nearest, QuantBackend, ScratchDir};
use qoft::train::data::{Dataset, Example};
use qoft::{Calibration, KeptShares, LayerSearch, MergeSample, MergeTarget, NewScheme};
use serde_json::json;

use super::{Subject, collected};
use crate::commands::quickstart;
use crate::data;

/// Layers that are tried.
const LAYERS: usize = 8;
/// Rows of text that show the inputs of these layers, and tokens of each.
const ROWS: usize = 16;
const TOKENS: usize = 128;
/// Name of the folders that are removed afterwards.
const FOLDER: &str = "qoft-alternatives";

/// The error of a merge that keeps too little, with what else can be done.
pub(super) fn with_alternatives(
    subject: Subject,
    error: Error,
    data: Option<&Dataset>,
) -> anyhow::Error {
    let mut text = format!("{error}.\n");
    match measured(subject, data) {
        Ok(measured) => text.push_str(&measured),
        Err(e) => {
            let _ = writeln!(text, "What else can be done was not measured: {e:#}");
        }
    }
    let more = match data {
        None => "--calibration FILE",
        // That was tried.
        Some(_) => "--quantize with a finer scheme",
    };
    let _ = write!(
        text,
        "The error is that of the outputs beside their change: at 1 nothing is gained.\n\
         --dequantize keeps all of the change, {more} keeps more of it than this merge, and \
         --min-kept 0 writes this merge all the same"
    );
    anyhow!(text)
}

/// The shares that other ways to merge keep, as a table.
fn measured(subject: Subject, data: Option<&Dataset>) -> Result<String> {
    let Subject {
        model,
        schemes,
        adapters,
        ..
    } = subject;
    let parent = std::env::temp_dir();
    let scratch = ScratchDir::new(&parent, FOLDER)?;
    let sample = MergeSample::new(model, schemes, adapters, LAYERS, scratch.path())?;
    let count = sample.paths().count();
    let mut text = format!("What is kept of this adapter's changes, measured on {count} layers");
    let inputs = match inputs(subject, &sample, data, &scratch) {
        Ok((inputs, from)) => {
            let _ = writeln!(text, " and {from}:");
            Some(inputs)
        }
        Err(e) => {
            let _ = writeln!(text, " (their outputs were not measured: {e:#}):");
            None
        }
    };
    let [weights, outputs, error] = ["weights", "outputs", "error"];
    let _ = writeln!(text, "  {:<46} {weights:>8} {outputs:>8} {error:>8}", "");
    let mut line = |name: &str, kept: KeptShares| {
        let outputs = kept.outputs.map_or("-".to_owned(), percent);
        let _ = writeln!(
            text,
            "  {name:<46} {:>8} {outputs:>8} {:>8.2}",
            percent(kept.weights),
            kept.error
        );
    };
    let nearest = Nearest;
    let seen = inputs.as_ref().map(Seen);
    let plain: &dyn LayerSearch = match &seen {
        Some(seen) => seen,
        None => &nearest,
    };
    line("the nearest codes", sample.merged(subject.target(plain))?);
    if let Some(calibration) = &inputs {
        let found = sample.merged(subject.target(calibration))?;
        line("--calibration FILE", found);
    }
    for (name, format) in [("f32", FloatFormat::F32), ("bf16", FloatFormat::Bf16)] {
        let found = sample.merged(MergeTarget::Dense(format))?;
        line(&format!("--dequantize --dtype {name}"), found);
    }
    if let Some((name, kept)) = best_scheme(subject, &sample, plain)? {
        line(&format!("--quantize {name}"), kept);
    }
    Ok(text)
}

/// The scheme with the least error where it is that of the result, if it keeps more than half and the
/// error is smaller than the change.
fn best_scheme(
    subject: Subject,
    sample: &MergeSample,
    inputs: &dyn LayerSearch,
) -> Result<Option<(&'static str, KeptShares)>> {
    let registry = &subject.registries.schemes;
    let mut own: BTreeSet<&str> = sample.backends().collect();
    own.extend(
        subject
            .written
            .map(|written| written.quantization.backend()),
    );
    let others = registry.backends().map(QuantBackend::name);
    let mut best: Option<(&'static str, KeptShares)> = None;
    for name in others.filter(|name| !own.contains(name)) {
        let settings = Keys::new(name, json!({}));
        // Not all of them can quantize, by default settings or with layers of these sizes.
        let Ok(quantization) = registry.quantization(name, &settings) else {
            continue;
        };
        let scheme = NewScheme::new(registry, &quantization, inputs);
        let Ok(kept) = sample.merged(MergeTarget::NewScheme(scheme)) else {
            continue;
        };
        let least = best.map_or(1.0, |(_, best)| best.error);
        if share(kept) > 0.5 && kept.error < least {
            best = Some((name, kept));
        }
    }
    Ok(best)
}

fn share(kept: KeptShares) -> f64 {
    kept.outputs.unwrap_or(kept.weights)
}

/// What the inputs of the sampled layers are, and on what text.
fn inputs(
    subject: Subject,
    sample: &MergeSample,
    data: Option<&Dataset>,
    scratch: &ScratchDir,
) -> Result<(Calibration, &'static str)> {
    let args = subject.args;
    let (rows, from) = match (&args.calibration.calibration, data) {
        (Some(path), _) => {
            let rows = data::for_model(subject.model, path, args.max_length)?.examples;
            (rows, "the first rows of the calibration data")
        }
        (None, Some(data)) => (data.examples.clone(), "the first rows of --data"),
        (None, None) => (own_text(subject, scratch)?, "a little English text"),
    };
    let wanted: BTreeSet<&str> = sample.paths().collect();
    let wanted = |path: &str| wanted.contains(path);
    let calibration = collected(subject, &shortened(&rows), &wanted, scratch.path())?;
    Ok((calibration, from))
}

/// Nearest codes for layers whose inputs are known.
struct Seen<'a>(&'a Calibration);

impl LayerSearch for Seen<'_> {
    fn search(&self, _: &str, _: Option<&Matrix>) -> qoft::core::Result<Box<dyn CodeSearch + '_>> {
        Ok(Box::new(Nearest))
    }

    fn inputs(&self, layer: &str) -> qoft::core::Result<Option<qoft::Hessian>> {
        self.0.inputs(layer)
    }
}

/// The first rows, cut.
fn shortened(rows: &[Example]) -> Vec<Example> {
    let cut = |row: &Example| {
        let mut row = row.clone();
        row.input_ids.truncate(TOKENS);
        row.labels.truncate(TOKENS);
        row
    };
    rows.iter().take(ROWS).map(cut).collect()
}

/// Rows of the text that comes with the program, in the model's tokens.
fn own_text(subject: Subject, scratch: &ScratchDir) -> Result<Vec<Example>> {
    let path = scratch.path().join("sample.jsonl");
    std::fs::write(&path, quickstart::TEXT)?;
    Ok(data::for_model(subject.model, &path, subject.args.max_length)?.examples)
}

fn percent(share: f64) -> String {
    // Not -0.
    format!("{:.0} %", (100.0 * share).round() + 0.0)
}
