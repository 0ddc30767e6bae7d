//! A training step of every model, in qoft and in PEFT, which take turns.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Bench;
use super::model::Model;
use super::outcome::Outcome;
use super::rows;
use super::table::{NOTHING, Table, maybe, mebibytes, number, ratio};
use super::training::{Run, Task, Training};

/// A model at one shape.
#[derive(Debug, Deserialize, Serialize)]
pub struct StepRow {
    pub model: String,
    /// Rows and tokens.
    pub shape: [usize; 2],
    /// Operations of the products with weights.
    pub flops: f64,
    /// The least time for them.
    pub floor_seconds: f64,
    pub dense_f32: bool,
    pub qoft: Outcome<Training>,
    /// With `--compute-dtype bf16`.
    #[serde(default = "Outcome::nothing")]
    pub qoft_bf16: Outcome<Training>,
    pub peft_f32: Outcome<Training>,
    pub peft_bf16: Outcome<Training>,
}

/// Runs of one program on one model.
struct Column {
    runs: Vec<Run>,
    /// Why there are no more.
    not: Option<String>,
}

impl Column {
    fn new(refusal: Option<&str>) -> Self {
        Self {
            runs: Vec::new(),
            not: refusal.map(Into::into),
        }
    }

    fn outcome(&self, tokens: usize) -> Outcome<Training> {
        match &self.not {
            Some(reason) => Outcome::Not(reason.clone()),
            None => {
                Training::of(&self.runs, tokens).map_or_else(Outcome::nothing, Outcome::Measured)
            }
        }
    }
}

/// The programs, in the order of a model's columns.
const PROGRAMS: [&str; 4] = ["qoft", "qoft bf16", "PEFT f32", "PEFT bf16"];

/// Measures all models at all shapes.
///
/// # Errors
///
/// If files cannot be written; a program that fails is a [`Outcome::Not`].
pub fn measure(bench: &mut Bench) -> Result<Vec<StepRow>> {
    let mut found = Vec::new();
    for &shape in bench.sizes.shapes {
        found.extend(measure_shape(bench, shape)?);
    }
    Ok(found)
}

fn measure_shape(bench: &mut Bench, shape: [usize; 2]) -> Result<Vec<StepRow>> {
    let models = bench.models.clone();
    let mut columns: Vec<[Column; 4]> = models
        .iter()
        .map(|model| {
            let bf16 = (!bench.machine.bf16).then_some(NOTHING);
            let peft = bench.peft.refusal(model);
            let peft_bf16 = bench.peft.bf16_refusal(model, &bench.machine);
            [None, bf16, peft, peft_bf16].map(Column::new)
        })
        .collect();
    for round in 1..=bench.sizes.rounds {
        for (model, columns) in models.iter().zip(&mut columns) {
            for (index, column) in columns.iter_mut().enumerate() {
                if column.not.is_none() {
                    let rounds = bench.sizes.rounds;
                    let [rows, length] = shape;
                    let label = format!(
                        "step {rows}x{length}, round {round} of {rounds}: {}, {}",
                        model.name, PROGRAMS[index]
                    );
                    match run(bench, &label, model, shape, index)? {
                        Outcome::Measured(run) => column.runs.push(run),
                        Outcome::Not(reason) => column.not = Some(reason),
                    }
                }
            }
        }
    }
    let tokens = shape[0] * shape[1];
    let rows = models.iter().zip(columns).map(|(model, columns)| {
        let [qoft, qoft_bf16, peft_f32, peft_bf16] = columns.map(|column| column.outcome(tokens));
        let flops = model.step_flops(shape);
        StepRow {
            model: model.name.clone(),
            shape,
            flops,
            floor_seconds: flops / bench.rates.flops,
            dense_f32: model.is_dense_f32(),
            qoft,
            qoft_bf16,
            peft_f32,
            peft_bf16,
        }
    });
    Ok(rows.collect())
}

fn run(
    bench: &mut Bench,
    label: &str,
    model: &Model,
    shape: [usize; 2],
    program: usize,
) -> Result<Outcome<Run>> {
    let work = bench.folder()?;
    let steps = bench.sizes.steps;
    let data = rows::write(work.path(), steps * shape[0], shape[1], model.vocab_size)?;
    let task = Task {
        model,
        data,
        shape,
        steps,
        gradient_checkpointing: false,
        compute_dtype: "f32",
    };
    eprint!("{label}: ");
    let run = match program {
        0 => bench.qoft.train(&task, &work.path().join("adapter")),
        1 => {
            let task = Task {
                compute_dtype: "bf16",
                ..task
            };
            bench.qoft.train(&task, &work.path().join("adapter"))
        }
        2 => bench.peft.train(&task, "float32", work.path()),
        _ => bench.peft.train(&task, "bfloat16", work.path()),
    };
    let run = bench.failures.check(label, run);
    if let Outcome::Measured(run) = &run {
        let training = Training::of(std::slice::from_ref(run), shape[0] * shape[1]);
        eprintln!(
            "{} s a step",
            maybe(training.map(|training| training.seconds_per_step))
        );
    }
    Ok(run)
}

/// Times and memory, a table of each for every shape.
pub fn tables(found: &[StepRow]) -> Vec<Table> {
    let mut shapes: Vec<[usize; 2]> = found.iter().map(|row| row.shape).collect();
    shapes.dedup();
    let tables = shapes.into_iter().flat_map(|shape| {
        let rows: Vec<&StepRow> = found.iter().filter(|row| row.shape == shape).collect();
        [times(shape, &rows), memory(shape, &rows)]
    });
    tables.collect()
}

fn times([rows, length]: [usize; 2], found: &[&StepRow]) -> Table {
    let work = found.first().map_or(0.0, |row| row.flops / 1e9);
    let title = format!(
        "Time of a step of {rows} × {length} tokens ({} GFLOP of products with weights and of attention).",
        number(work)
    );
    let mut table = Table::new(
        title,
        &[
            "model",
            "qoft, s",
            "tokens/s",
            "floor, s",
            "qoft ÷ floor",
            "qoft ÷ qoft dense f32",
            "PEFT f32, s",
            "PEFT f32 ÷ qoft",
            "PEFT bf16, s",
            "PEFT bf16 ÷ qoft",
            "qoft bf16, s",
            "qoft bf16 ÷ qoft",
            "PEFT bf16 ÷ qoft bf16",
        ],
    );
    let seconds = |outcome: &Outcome<Training>| outcome.measured().map(|t| t.seconds_per_step);
    let cell = |outcome: &Outcome<Training>| outcome.cell(|t| number(t.seconds_per_step));
    let dense = found.iter().find(|row| row.dense_f32);
    let dense = dense.and_then(|row| seconds(&row.qoft));
    for row in found {
        let qoft = seconds(&row.qoft);
        table.row([
            row.model.clone(),
            cell(&row.qoft),
            row.qoft.cell(|t| number(t.tokens_per_second)),
            number(row.floor_seconds),
            ratio(qoft, Some(row.floor_seconds)),
            ratio(qoft, dense),
            cell(&row.peft_f32),
            ratio(seconds(&row.peft_f32), qoft),
            cell(&row.peft_bf16),
            ratio(seconds(&row.peft_bf16), qoft),
            cell(&row.qoft_bf16),
            ratio(seconds(&row.qoft_bf16), qoft),
            ratio(seconds(&row.peft_bf16), seconds(&row.qoft_bf16)),
        ]);
    }
    table
}

fn memory([rows, length]: [usize; 2], found: &[&StepRow]) -> Table {
    let mut table = Table::new(
        format!("Memory and start, {rows} × {length} tokens a step."),
        &[
            "model",
            "qoft peak, MiB",
            "PEFT f32 peak, MiB",
            "qoft ÷ PEFT f32",
            "PEFT bf16 peak, MiB",
            "qoft ÷ PEFT bf16",
            "qoft, start to first step, s",
            "PEFT f32, start to first step, s",
            "PEFT f32 start ÷ qoft start",
        ],
    );
    let peak = |outcome: &Outcome<Training>| outcome.measured().and_then(|t| t.peak_bytes);
    let peak_cell = |outcome: &Outcome<Training>| {
        outcome.cell(|training| maybe(training.peak_bytes.map(mebibytes)))
    };
    let start = |outcome: &Outcome<Training>| outcome.measured().map(|t| t.start_to_first_step);
    let start_cell = |outcome: &Outcome<Training>| outcome.cell(|t| number(t.start_to_first_step));
    for row in found {
        table.row([
            row.model.clone(),
            peak_cell(&row.qoft),
            peak_cell(&row.peft_f32),
            ratio(peak(&row.qoft), peak(&row.peft_f32)),
            peak_cell(&row.peft_bf16),
            ratio(peak(&row.qoft), peak(&row.peft_bf16)),
            start_cell(&row.qoft),
            start_cell(&row.peft_f32),
            ratio(start(&row.peft_f32), start(&row.qoft)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(seconds: f64) -> Outcome<Training> {
        let run = Run {
            seconds: vec![9.0, 9.0, seconds],
            start_to_first_step: 2.0 * seconds,
            peak_bytes: Some(((100.0 * seconds) as u64) << 20),
        };
        Outcome::Measured(Training::of(&[run], 512).expect("a step"))
    }

    fn row(model: &str, seconds: f64, peft: Outcome<Training>) -> StepRow {
        StepRow {
            model: model.into(),
            shape: [4, 128],
            flops: 275.4e9,
            floor_seconds: 0.5,
            dense_f32: model == "dense",
            qoft: training(seconds),
            qoft_bf16: Outcome::nothing(),
            peft_f32: peft,
            peft_bf16: Outcome::nothing(),
        }
    }

    #[test]
    fn quotients_are_those_of_the_medians() {
        let rows = [
            row("dense", 1.0, training(4.0)),
            row("gptq", 2.0, Outcome::Not("not on a CPU".into())),
        ];
        let text: Vec<String> = tables(&rows).iter().map(Table::markdown).collect();
        let [times, memory] = &text[..] else {
            panic!("two tables");
        };
        assert!(times.contains("4 × 128 tokens (275 GFLOP"), "{times}");
        let line = "| dense | 1.00 | 512 | 0.500 | 2.00 | 1.00 | 4.00 | 4.00 |";
        assert!(times.contains(line), "{times}");
        let line = "| gptq | 2.00 | 256 | 0.500 | 4.00 | 2.00 | not on a CPU | – |";
        assert!(times.contains(line), "{times}");
        assert!(!times.contains("bf16"), "{times}");
        let line = "| dense | 100 | 400 | 0.250 | 2.00 | 8.00 | 4.00 |";
        assert!(memory.contains(line), "{memory}");
    }
}
