//! `qoft lr-find`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use qoft::Registries;
use qoft::core::write_file;
use qoft::train::TrainError;
use qoft::train::data::Dataset;
use qoft::train::preference::PreferenceData;
use qoft::train::train::{Observer, RateSearch, RunFolder, StepReport, Strategy};
use serde_json::json;

use super::train::{Learned, Settings, Setup};
use crate::args::LrFindArgs;
use crate::print::{errln, outln};
use crate::processes::Processes;
use crate::stop::{self, Graceful, Stopped};
use crate::{files, progress};

/// Steps of a search, if it is not said how many.
const STEPS: usize = 100;

/// Trains for some steps with a rate that rises, and draws the losses.
pub fn run(args: &LrFindArgs, registries: &Registries) -> Result<()> {
    files::check_picture(&args.plot)?;
    let steps = args.train.training.config()?.max_steps.unwrap_or(STEPS);
    let search = RateSearch::new(args.start_lr, args.end_lr, steps)?;
    let settings = Settings::new(&args.train, registries)?;
    match settings.prefers() {
        false => searched::<Dataset>(args, registries, settings, search),
        true => searched::<PreferenceData>(args, registries, settings, search),
    }
}

fn searched<D: Learned>(
    args: &LrFindArgs,
    registries: &Registries,
    settings: Settings,
    search: RateSearch,
) -> Result<()> {
    let steps = search.rates().len();
    let alone = Processes::alone();
    let (mut setup, model) = Setup::<D>::load(&args.train, registries, settings, &alone)?;
    setup.config.max_steps = Some(steps);
    setup.config.save_strategy = Some(Strategy::No);
    setup.data.eval_dataset = None;

    let scratch = tempfile::tempdir().context("a folder for the run")?;
    let folder = RunFolder::open(&scratch.path().join("run"))?;
    let rates = search.rates().to_vec();
    let mut trainer = setup.trainer(&folder);
    trainer.rates = &rates;
    let over = AtomicBool::new(false);
    let mut events = Searching {
        search,
        over: &over,
        bar: progress::bar("searching", steps),
    };
    let graceful = Graceful::begin();
    let result = trainer.run(model, &mut events, &over);
    events.bar.finish_and_clear();
    drop(graceful);
    match result {
        // A rate that is too high is what was looked for.
        Ok(_) | Err(TrainError::NotFinite(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if stop::requested().load(Ordering::SeqCst) {
        return Err(Stopped.into());
    }
    setup.data.report_losses();
    tell(&events.search, args)
}

/// Says what was found, and then draws it: what was computed is not lost with a picture.
fn tell(search: &RateSearch, args: &LrFindArgs) -> Result<()> {
    let drawn = || -> Result<()> {
        write_file(&args.plot, search.to_svg()?.as_bytes())?;
        errln!("the losses are drawn in {}", args.plot.display());
        Ok(())
    };
    let found = search.found();
    if args.train.json.unwrap_or(false) {
        let (steepest, lowest) = found.map(|f| (f.steepest, f.lowest)).unzip();
        outln!(
            "{}",
            json!({
                "suggestion": steepest,
                "lowest": lowest,
                "rates": search.rates(),
                "losses": search.losses(),
                "plot": args.plot.display().to_string(),
            })
        );
    }
    let Some(found) = found else {
        drawn()?;
        bail!(
            "the loss did not fall at any rate from {:.0e} to {:.0e}; more steps (--max-steps), larger \
             batches or other --start-lr and --end-lr may show more",
            args.start_lr,
            args.end_lr
        );
    };
    errln!(
        "the loss falls fastest at {:.1e}, and is lowest at {:.1e}",
        found.steepest,
        found.lowest
    );
    errln!("suggestion: --learning-rate {:.1e}", found.steepest);
    drawn()
}

/// A search under way.
struct Searching<'a> {
    search: RateSearch,
    over: &'a AtomicBool,
    bar: ProgressBar,
}

impl Observer for Searching<'_> {
    fn step(&mut self, report: &StepReport) {
        self.bar.set_position(report.step as u64);
        let message = format!("learning rate {:.1e}  loss {:.4}", report.lr, report.loss);
        self.bar.set_message(message);
        if !self.search.add(report.loss) || stop::requested().load(Ordering::SeqCst) {
            self.over.store(true, Ordering::SeqCst);
        }
    }
}
