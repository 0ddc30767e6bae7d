//! `cargo xtask bench`: qoft measured, beside PEFT, in one run.

mod figures;
mod generation;
mod layer;
mod machine;
mod merging;
mod model;
mod options;
mod outcome;
mod peft;
mod plot;
mod process;
mod qoft;
mod rates;
mod report;
mod rows;
mod step;
mod table;
mod training;
mod trend;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tempfile::TempDir;

use machine::Machine;
use model::Model;
use options::{Options, Section, Sizes};
use outcome::Failures;
use peft::Peft;
use qoft::Qoft;
use rates::Rates;
pub use report::Report;

/// Everything that a part of the benchmark needs.
#[derive(Debug)]
struct Bench<'a> {
    sizes: Sizes,
    machine: Machine,
    rates: Rates,
    qoft: Qoft,
    peft: Peft<'a>,
    models: Vec<Model>,
    failures: Failures,
    /// Where temporary files go: on the disk, since a model may be larger than `/tmp`.
    work: PathBuf,
}

impl Bench<'_> {
    /// A folder that goes away with the value.
    fn folder(&self) -> Result<TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.work);
        folder.with_context(|| self.work.display().to_string())
    }
}

/// Measures what the arguments ask for.
pub fn run(args: &[&str], root: &Path) -> Result<()> {
    let parsed = Options::try_parse_from(std::iter::once(&"bench").chain(args));
    let options = parsed.unwrap_or_else(|error| error.exit());
    let machine = Machine::here();
    let threads = options.threads.map_or(machine.threads, Into::into);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global()?;
    let qoft = Qoft::new(options.qoft.clone(), root, threads)?;
    let models = models(&options, &qoft)?;
    let sizes = options.sizes();
    eprintln!("measuring the machine");
    let rates = Rates::measure(sizes.stream_bytes, Rates::rounds(options.quick));
    let work = root.join("target");
    let mut bench = Bench {
        sizes,
        machine,
        rates,
        qoft,
        peft: Peft::new(&options, root, threads),
        models,
        failures: Failures::default(),
        work,
    };
    let report = measure(&mut bench, &options, threads, root)?;
    crate::say(&report.markdown())?;
    match report.failures.len() {
        0 => Ok(()),
        count => bail!("{count} runs failed; the report names them"),
    }
}

/// Measures part by part. The files are written after each: it takes long, and may be stopped.
fn measure(bench: &mut Bench, options: &Options, threads: usize, root: &Path) -> Result<Report> {
    const PARTS: [Section; 5] = [
        Section::Step,
        Section::Generate,
        Section::Merge,
        Section::Layer,
        Section::Trend,
    ];
    let mut report = Report::new(bench, options, threads);
    for part in PARTS.into_iter().filter(|part| options.wants(*part)) {
        match part {
            Section::Step => report.steps = step::measure(bench)?,
            Section::Generate => report.generation = generation::measure(bench),
            Section::Merge => report.merges = merging::measure(bench)?,
            Section::Layer => report.layers = layer::measure(bench)?,
            Section::Trend => report.trend = Some(trend::measure(bench)?),
        }
        report.failures = bench.failures.lines().to_vec();
        if options.write {
            report.write(root)?;
        }
    }
    Ok(report)
}

/// The models that are given, or else those of the folder of models that qoft can read, by name.
fn models(options: &Options, qoft: &Qoft) -> Result<Vec<Model>> {
    let only_layers = options.only.iter().all(|only| *only == Section::Layer);
    if only_layers && !options.only.is_empty() {
        return Ok(Vec::new());
    }
    let given = options.model.iter().map(|folder| qoft.model(folder));
    let mut models = given.collect::<Result<Vec<_>>>()?;
    if models.is_empty() {
        let mut folders = Vec::new();
        let parent = &options.models;
        let entries = std::fs::read_dir(parent).with_context(|| {
            let parent = parent.display();
            format!("{parent}: no folder of models; docs/smollm2.md says how to make one")
        })?;
        for entry in entries {
            let folder = entry?.path();
            if folder.join("config.json").is_file() {
                folders.push(folder);
            }
        }
        folders.sort();
        for folder in &folders {
            match qoft.model(folder) {
                Ok(model) => models.push(model),
                Err(error) => eprintln!("left out: {}: {error:#}", folder.display()),
            }
        }
    }
    if models.is_empty() {
        bail!("no models to measure");
    }
    Ok(models)
}
