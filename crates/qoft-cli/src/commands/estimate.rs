//! `qoft estimate`, which is `qoft train --dry-run` too.

mod memory;
mod probe;

use anyhow::{Result, ensure};
use qoft::Registries;
use qoft::core::trainable_parameters;
use qoft::train::TrainModel;
use qoft::train::data::Dataset;
use qoft::train::preference::PreferenceData;
use qoft::train::train::{TrainConfig, Workload};
use serde_json::{Value, json};

use super::train::{Learned, Settings, Setup};
use crate::args::TrainArgs;
use crate::print::outln;
use crate::processes::Processes;
use crate::progress;
use probe::{Measured, Probe};

/// Shares of the largest batch that are measured before it.
const SMALLER: [usize; 2] = [4, 2];
/// The largest batch is measured if it is expected to need at most this share of the memory.
const SAFE: f64 = 0.8;
const MIB: f64 = (1 << 20) as f64;

/// What a run needs with or without checkpointing.
struct Need {
    checkpointing: bool,
    /// Of the largest batch; a prediction where that was not computed.
    peak: f64,
    is_measured: bool,
    /// Memory of a further token in a batch.
    per_token: f64,
    /// Of the whole run.
    seconds: f64,
}

/// Measures what a training would need, without one.
pub fn run(args: &TrainArgs, registries: &Registries) -> Result<()> {
    let device = args.device.as_deref().unwrap_or("cpu");
    ensure!(
        device == "cpu",
        "--device {device}: only the memory of this machine is measured, not that of a GPU; \
         --max-steps 2 shows whether a training fits"
    );
    let settings = Settings::new(args, registries)?;
    match settings.prefers() {
        false => measure::<Dataset>(args, registries, settings),
        true => measure::<PreferenceData>(args, registries, settings),
    }
}

fn measure<D: Learned>(
    args: &TrainArgs,
    registries: &Registries,
    settings: Settings,
) -> Result<()> {
    let (setup, model) = Setup::<D>::load(args, registries, settings, &Processes::alone())?;
    let loaded = memory::resident()?;
    let limit = memory::limit()? as f64;
    let load = Workload::new(&setup.config, &setup.data.dataset);
    let config = setup.config.clone();
    let trainable = trainable_parameters(&model).0;
    let mut ways = vec![config.gradient_checkpointing];
    // What needs less comes first, since freed memory may stay with the process.
    if model.blocks().is_some() {
        ways = vec![true, false];
    }
    let bar = progress::bar("measuring", ways.len() * (SMALLER.len() + 1));
    let mut probe = Probe {
        setup: &setup,
        model: Some(model),
    };
    let mut needs = Vec::new();
    for checkpointing in ways {
        let mut config = config.clone();
        config.gradient_checkpointing = checkpointing;
        let mut measured = Vec::new();
        let (rows, length) = load.largest;
        for part in SMALLER {
            measured.push(probe.measure((rows, (length / part).max(2)), &config)?);
            bar.inc(1);
        }
        let by_tokens = line(&measured, |m| m.peak as f64);
        let mut peak = by_tokens.at((rows * length) as f64).max(loaded as f64);
        let is_measured = peak < SAFE * limit;
        if is_measured {
            let largest = probe.measure(load.largest, &config)?;
            peak = largest.peak as f64;
            measured.push(largest);
        }
        let seconds = line(&measured, |m| m.seconds);
        needs.push(Need {
            checkpointing,
            peak,
            is_measured,
            per_token: by_tokens.slope,
            seconds: load.sum(|(rows, length)| seconds.at((rows * length) as f64)),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    setup.data.report_losses();
    let estimate = Estimate {
        config: &config,
        load: &load,
        loaded: loaded as f64,
        limit,
        optimizer: (trainable * 4 * config.optimizer.moments_per_parameter()) as f64,
        trainable: (trainable * 4) as f64,
        needs: &needs,
    };
    if args.json.unwrap_or(false) {
        outln!("{}", estimate.json());
    } else {
        estimate.print();
    }
    Ok(())
}

/// A value that grows with the tokens of a batch.
struct Line {
    slope: f64,
    start: f64,
}

impl Line {
    fn at(&self, tokens: f64) -> f64 {
        self.start + self.slope * tokens
    }
}

/// The line through the first and the last measurement; flat where they are of the same size.
fn line(measured: &[Measured], value: impl Fn(&Measured) -> f64) -> Line {
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else {
        return Line {
            slope: 0.0,
            start: 0.0,
        };
    };
    let tokens = last.tokens as f64 - first.tokens as f64;
    let slope = match tokens > 0.0 {
        true => ((value(last) - value(first)) / tokens).max(0.0),
        false => 0.0,
    };
    Line {
        slope,
        start: value(last) - slope * last.tokens as f64,
    }
}

/// Everything that is told.
struct Estimate<'a> {
    config: &'a TrainConfig,
    load: &'a Workload,
    loaded: f64,
    limit: f64,
    trainable: f64,
    optimizer: f64,
    needs: &'a [Need],
}

impl Estimate<'_> {
    /// What the options ask for.
    fn asked(&self) -> Option<&Need> {
        let asked = self.config.gradient_checkpointing;
        self.needs.iter().find(|need| need.checkpointing == asked)
    }

    fn print(&self) {
        let (rows, length) = self.load.largest;
        outln!(
            "{} steps, {} tokens with padding; the largest batch has {rows} rows of {} tokens",
            progress::grouped(self.load.steps),
            progress::grouped(self.load.tokens() as usize),
            progress::grouped(length)
        );
        outln!(
            "memory once the model and the data are loaded  {:>8.0} MiB",
            self.loaded / MIB
        );
        outln!(
            "  of that what trains                          {:>8.0} MiB",
            self.trainable / MIB
        );
        outln!(
            "its gradients                                  {:>8.0} MiB",
            self.trainable / MIB
        );
        outln!(
            "the optimizer                                  {:>8.0} MiB",
            self.optimizer / MIB
        );
        for need in self.needs {
            let rest = need.peak - self.loaded - self.trainable - self.optimizer;
            let name = match need.checkpointing {
                true => "with --gradient-checkpointing",
                false => "without --gradient-checkpointing",
            };
            outln!(
                "{name}{}",
                if need.is_measured {
                    ""
                } else {
                    " (not tried, by smaller batches)"
                }
            );
            outln!(
                "  activations                                  {:>8.0} MiB",
                rest.max(0.0) / MIB
            );
            outln!(
                "  peak                                         {:>8.0} MiB",
                need.peak / MIB
            );
            outln!(
                "  time of the whole run                        {:>12}",
                duration(need.seconds)
            );
        }
        outln!(
            "this process can have                          {:>8.0} MiB",
            self.limit / MIB
        );
        outln!("{}", self.advice());
    }

    fn advice(&self) -> String {
        let Some(asked) = self.asked() else {
            return String::new();
        };
        if asked.peak <= self.limit {
            return "it fits".into();
        }
        let other = self.needs.iter().find(|need| need.checkpointing);
        if let Some(need) = other.filter(|need| need.peak <= self.limit) {
            return format!(
                "it does not fit; with --gradient-checkpointing it does, in {}",
                duration(need.seconds)
            );
        }
        let (rows, length) = self.load.largest;
        let most = other.unwrap_or(asked);
        let room = self.limit - (most.peak - most.per_token * (rows * length) as f64);
        let tokens = (room / most.per_token).max(0.0) as usize;
        match tokens / length.max(1) {
            0 if tokens > 0 => format!(
                "it does not fit; with --gradient-checkpointing --batch-size 1 --max-length {tokens} \
                 it may"
            ),
            0 => "it does not fit: the model alone needs the memory; one with fewer parameters or \
                  fewer bits might"
                .into(),
            rows => format!(
                "it does not fit; with --gradient-checkpointing --batch-size {rows} it may, and \
                 --gradient-accumulation-steps makes up for it"
            ),
        }
    }

    fn json(&self) -> Value {
        let need = |need: &Need| {
            json!({
                "gradient_checkpointing": need.checkpointing,
                "peak_bytes": need.peak as u64,
                "measured": need.is_measured,
                "seconds": need.seconds,
            })
        };
        json!({
            "steps": self.load.steps,
            "tokens": self.load.tokens() as u64,
            "largest_batch": {"rows": self.load.largest.0, "length": self.load.largest.1},
            "loaded_bytes": self.loaded as u64,
            "trainable_bytes": self.trainable as u64,
            "optimizer_bytes": self.optimizer as u64,
            "available_bytes": self.limit as u64,
            "runs": self.needs.iter().map(need).collect::<Vec<_>>(),
            "advice": self.advice(),
        })
    }
}

/// Hours and minutes, or minutes and seconds.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        hours => format!("{hours} h {:02} min", seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use qoft::train::data::{Dataset, Example};

    use super::*;

    #[test]
    fn advice_is_what_fits() {
        let rows = (0..8).map(|_| Example::new(vec![1; 100], vec![1; 100]));
        let dataset = Dataset::new(rows);
        let mut config = TrainConfig::default();
        config.batch_size = 4;
        let load = Workload::new(&config, &dataset);
        assert_eq!(load.largest, (4, 100));
        // 1,000 for the model, and so much for each of the 400 tokens.
        let need = |checkpointing, per_token: f64| Need {
            checkpointing,
            peak: 1000.0 + 400.0 * per_token,
            is_measured: false,
            per_token,
            seconds: 60.0,
        };
        let needs = [need(true, 10.0), need(false, 100.0)];
        let advice = |limit| {
            let estimate = Estimate {
                config: &config,
                load: &load,
                loaded: 1000.0,
                limit,
                trainable: 0.0,
                optimizer: 0.0,
                needs: &needs,
            };
            estimate.advice()
        };
        for (limit, says) in [
            (41_000.0, "it fits"),
            (40_000.0, "with --gradient-checkpointing it does"),
            (3_500.0, "--batch-size 2"),
            (1_500.0, "--batch-size 1 --max-length 50"),
            (900.0, "the model alone"),
        ] {
            assert!(advice(limit).contains(says), "{limit}: {}", advice(limit));
        }
    }
}
