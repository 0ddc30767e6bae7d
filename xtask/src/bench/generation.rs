//! Tokens that each model writes, one after another.

use serde::{Deserialize, Serialize};

use super::Bench;
use super::outcome::Outcome;
use super::table::{Table, mebibytes, median, number};

/// A model.
#[derive(Debug, Deserialize, Serialize)]
pub struct GenerationRow {
    pub model: String,
    pub tokens_per_second: Outcome<f64>,
    /// Bytes of weights that a token needs.
    pub token_bytes: f64,
    /// The machine's rate of reading.
    pub stream_bytes: f64,
}

/// Measures all models.
pub fn measure(bench: &mut Bench) -> Vec<GenerationRow> {
    let models = bench.models.clone();
    let rounds = bench.sizes.rounds;
    let mut rates: Vec<Outcome<Vec<f64>>> = vec![Outcome::Measured(Vec::new()); models.len()];
    for round in 1..=rounds {
        for (model, rates) in models.iter().zip(&mut rates) {
            let Outcome::Measured(list) = rates else {
                continue;
            };
            let label = format!("generation, round {round} of {rounds}: {}", model.name);
            eprint!("{label}: ");
            let generated = bench.qoft.generate(model, bench.sizes.new_tokens);
            let rate = generated.and_then(|generated| {
                let rate = generated.tokens_per_second;
                rate.ok_or_else(|| anyhow::anyhow!("{} tokens written", generated.new_tokens))
            });
            match bench.failures.check(&label, rate) {
                Outcome::Measured(rate) => {
                    eprintln!("{} tokens/s", number(rate));
                    list.push(rate);
                }
                Outcome::Not(reason) => *rates = Outcome::Not(reason),
            }
        }
    }
    let rows = models
        .iter()
        .zip(rates)
        .map(|(model, rates)| GenerationRow {
            model: model.name.clone(),
            tokens_per_second: match rates {
                Outcome::Not(reason) => Outcome::Not(reason),
                Outcome::Measured(list) => {
                    median(list).map_or_else(Outcome::nothing, Outcome::Measured)
                }
            },
            token_bytes: model.token_bytes(),
            stream_bytes: bench.rates.bytes,
        });
    rows.collect()
}

/// The rates, and how near they are to that of the memory.
pub fn table(found: &[GenerationRow]) -> Table {
    let mut table = Table::new(
        "Tokens written one after another, without an adapter. Each needs all weights once; the \
         last column is how near that is to the machine's rate of reading memory.",
        &[
            "model",
            "tokens/s",
            "weights, MiB",
            "weights read, GB/s",
            "÷ rate of the memory",
        ],
    );
    for row in found {
        let read = |rate: f64| rate * row.token_bytes;
        let cell =
            |part: &dyn Fn(f64) -> f64| row.tokens_per_second.cell(|&rate| number(part(rate)));
        table.row([
            row.model.clone(),
            cell(&|rate| rate),
            number(mebibytes(row.token_bytes)),
            cell(&|rate| read(rate) / 1e9),
            cell(&|rate| read(rate) / row.stream_bytes),
        ]);
    }
    table
}
