//! A step over the number of layers and over the length of the text.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::model::Model;
use super::outcome::Outcome;
use super::plot::{Chart, Series};
use super::rows;
use super::table::{Table, maybe, mebibytes, number};
use super::training::{Task, Training};

/// Steps of a run: two that are not counted, and three.
const STEPS: usize = 5;

/// One model with one thing changed.
#[derive(Debug, Deserialize, Serialize)]
pub struct Trend {
    pub model: String,
    /// What the points of `depths` have in common: rows and tokens of a step.
    pub depth_shape: [usize; 2],
    pub depths: Vec<Point>,
    /// Steps of one row.
    pub lengths: Vec<Point>,
}

/// A step.
#[derive(Debug, Deserialize, Serialize)]
pub struct Point {
    /// The number of layers, or of tokens.
    pub at: usize,
    pub flops: f64,
    pub plain: Outcome<Training>,
    /// With `--gradient-checkpointing`.
    pub checkpointing: Outcome<Training>,
}

/// Measures the first model in 4 bits of bitsandbytes, or else the first one.
///
/// # Errors
///
/// If files cannot be written, or there is no model.
pub fn measure(bench: &mut Bench) -> Result<Trend> {
    let four_bits = bench.models.iter().find(|m| m.backend() == "bnb-4bit");
    let model = four_bits.or(bench.models.first()).context("no models")?;
    let model = model.clone();
    let (mut depths, mut lengths) = (Vec::new(), Vec::new());
    let depth_shape = bench.sizes.depth_shape;
    for &depth in bench.sizes.depths {
        if depth <= model.depth {
            let work = bench.folder()?;
            let cut = model.cut(depth, &work.path().join("model"))?;
            let label = format!("trend: {depth} layers");
            depths.push(point(bench, &label, &cut, depth_shape, depth)?);
        }
    }
    for &length in bench.sizes.lengths {
        let label = format!("trend: {length} tokens");
        lengths.push(point(bench, &label, &model, [1, length], length)?);
    }
    Ok(Trend {
        model: model.name,
        depth_shape,
        depths,
        lengths,
    })
}

fn point(
    bench: &mut Bench,
    label: &str,
    model: &Model,
    shape: [usize; 2],
    at: usize,
) -> Result<Point> {
    let tokens = shape[0] * shape[1];
    let mut step = |gradient_checkpointing: bool| -> Result<Outcome<Training>> {
        let work = bench.folder()?;
        let task = Task {
            model,
            data: rows::write(work.path(), STEPS * shape[0], shape[1], model.vocab_size)?,
            shape,
            steps: STEPS,
            gradient_checkpointing,
            compute_dtype: "f32",
        };
        let run = bench.qoft.train(&task, &work.path().join("adapter"));
        let training = run.and_then(|run| Training::of(&[run], tokens).context("no steps"));
        let training = bench.failures.check(label, training);
        let with = if gradient_checkpointing {
            ", checkpointing"
        } else {
            ""
        };
        eprintln!(
            "{label}{with}: {} s a step",
            training.cell(|t| number(t.seconds_per_step))
        );
        Ok(training)
    };
    Ok(Point {
        at,
        flops: model.step_flops(shape),
        plain: step(false)?,
        checkpointing: step(true)?,
    })
}

/// A table over the layers and one over the length.
pub fn tables(trend: &Trend) -> [Table; 2] {
    let table = |title: String, first: &str, points: &[Point]| {
        let mut table = Table::new(
            title,
            &[
                first,
                "GFLOP",
                "s a step",
                "peak, MiB",
                "s a step, checkpointing",
                "peak, checkpointing, MiB",
            ],
        );
        for point in points {
            let seconds =
                |outcome: &Outcome<Training>| outcome.cell(|t| number(t.seconds_per_step));
            let peak = |outcome: &Outcome<Training>| {
                outcome.cell(|training| maybe(training.peak_bytes.map(mebibytes)))
            };
            table.row([
                point.at.to_string(),
                number(point.flops / 1e9),
                seconds(&point.plain),
                peak(&point.plain),
                seconds(&point.checkpointing),
                peak(&point.checkpointing),
            ]);
        }
        table
    };
    let [rows, length] = trend.depth_shape;
    [
        table(
            format!(
                "{} cut after so many layers, {rows} × {length} tokens a step, with and without \
                 `--gradient-checkpointing`.",
                trend.model
            ),
            "layers",
            &trend.depths,
        ),
        table(
            format!("{}, one row of so many tokens a step.", trend.model),
            "tokens",
            &trend.lengths,
        ),
    ]
}

/// Time and memory over the layers and over the length.
pub fn charts(trend: &Trend) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (what, name, points) in [
        ("layers", "layers", &trend.depths),
        ("tokens", "length", &trend.lengths),
    ] {
        type Part = fn(&Training) -> Option<f64>;
        let parts: [(&str, &str, Part); 2] = [
            ("time", "seconds a step", |t| Some(t.seconds_per_step)),
            ("memory", "peak memory, MiB", |t| {
                t.peak_bytes.map(mebibytes)
            }),
        ];
        for (file, y, part) in parts {
            let line = |label: &str, outcome: fn(&Point) -> &Outcome<Training>| Series {
                label: label.into(),
                points: points
                    .iter()
                    .filter_map(|point| {
                        let value = part(outcome(point).measured()?)?;
                        Some((point.at as f64, value))
                    })
                    .collect(),
            };
            charts.push(Chart {
                file: format!("{name}_{file}.svg"),
                x: what.into(),
                y: y.into(),
                series: vec![
                    line("plain", |point| &point.plain),
                    line("gradient checkpointing", |point| &point.checkpointing),
                ],
            });
        }
    }
    charts
}
