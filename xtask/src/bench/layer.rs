//! One layer of a 7B model in the representations of several schemes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use qoft_kernels::ops::packed_matmul;
use qoft_kernels::{
    CodeMap, Codes, DenseWeight, FloatFormat, Floats, GroupedWeight, Groups, PackedWeight, Scales,
    WeightError, Zeros,
};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::table::{Table, median, number};

/// Repetitions, which take turns between the weights, and the one before them.
const REPEATS: usize = 5;
/// The table of nf4 (bitsandbytes' `create_normal_map`).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A weight at some number of rows.
#[derive(Debug, Deserialize, Serialize)]
pub struct LayerRow {
    /// Outputs and inputs.
    shape: [usize; 2],
    /// Tokens at once.
    rows: usize,
    weight: String,
    forward_seconds: f64,
    /// The gradient of the input.
    backward_seconds: f64,
    /// The least time of both, by the rate of multiplications.
    floor_seconds: f64,
}

impl LayerRow {
    fn seconds(&self) -> f64 {
        self.forward_seconds + self.backward_seconds
    }
}

/// Measures all shapes.
///
/// # Errors
///
/// If a weight cannot be made.
pub fn measure(bench: &Bench) -> Result<Vec<LayerRow>> {
    let mut found = Vec::new();
    for &shape in bench.sizes.layers {
        let weights = weights(shape)?;
        for &rows in bench.sizes.layer_rows {
            eprintln!("layer {}x{}, {rows} tokens", shape[0], shape[1]);
            found.extend(measure_rows(&weights, rows, bench.rates.flops));
        }
    }
    Ok(found)
}

fn measure_rows(weights: &Weights, rows: usize, flops: f64) -> Vec<LayerRow> {
    let shape @ [n, k] = weights[0].1.shape();
    let (x, dy) = (values(rows * k), values(rows * n));
    let mut times = vec![[Vec::new(), Vec::new()]; weights.len()];
    for repeat in 0..=REPEATS {
        for ((_, weight), times) in weights.iter().zip(&mut times) {
            let [forward, backward] = times;
            for (input, transpose, times) in [(&x, false, forward), (&dy, true, backward)] {
                let began = Instant::now();
                black_box(packed_matmul(input, &**weight, transpose));
                if repeat > 0 {
                    times.push(began.elapsed().as_secs_f64());
                }
            }
        }
    }
    let row = |(&(weight, _), [forward, backward]): (&(&'static str, _), [Vec<f64>; 2])| LayerRow {
        shape,
        rows,
        weight: weight.to_owned(),
        forward_seconds: median(forward).unwrap_or(f64::NAN),
        backward_seconds: median(backward).unwrap_or(f64::NAN),
        floor_seconds: 4.0 * (rows * n * k) as f64 / flops,
    };
    weights.iter().zip(times).map(row).collect()
}

type Weights = [(&'static str, Box<dyn PackedWeight>); 4];

/// The weight as each scheme has it, of random codes.
fn weights(shape @ [n, k]: [usize; 2]) -> Result<Weights, WeightError> {
    let nf4 = GroupedWeight::builder(
        shape,
        codes(4, n * k),
        CodeMap::Table16(Box::new(NF4)),
        Groups::Flat(64),
        Scales::Plain(Floats::from_f32(&values(n * k / 64), FloatFormat::F32)?),
    )
    .build("nf4")?;
    let int8 = GroupedWeight::builder(
        shape,
        codes(8, n * k),
        CodeMap::Int8,
        Groups::ROW,
        Scales::Plain(Floats::from_f32(&values(n), FloatFormat::F32)?),
    )
    .build("int8")?;
    let groups = n * k / 128;
    let zeros: Vec<u8> = (0..groups).map(|i| (i % 16) as u8).collect();
    let gptq = GroupedWeight::builder(
        shape,
        codes(4, n * k),
        CodeMap::Unsigned,
        Groups::Blocks([1, 128]),
        Scales::Plain(Floats::from_f32(&values(groups), FloatFormat::F16)?),
    )
    .zeros(Zeros::Integers(zeros.into()))
    .rounding(FloatFormat::F16)
    .build("int4")?;
    let dense = DenseWeight::from_f32(&values(n * k), shape);
    Ok([
        ("dense f32", Box::new(dense)),
        ("nf4", Box::new(nf4)),
        ("LLM.int8", Box::new(int8)),
        ("GPTQ 4 bit", Box::new(gptq)),
    ])
}

fn codes(bits: u32, count: usize) -> Codes {
    let bytes: Vec<u8> = (0..count * bits as usize / 8)
        .map(|i| (i * 151 + 7) as u8)
        .collect();
    Codes::new(bytes, bits)
}

/// Values between -1 and 1 that look random.
fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..count).map(value).collect()
}

/// A line for each shape and number of rows, a pair of columns for each weight.
pub fn table(found: &[LayerRow]) -> Table {
    let mut table = Table::new(
        "One layer of a 7B model: forward and gradient of its input, in milliseconds. nf4 has \
         blocks of 64, GPTQ groups of 128.",
        &[
            "out × in",
            "tokens",
            "floor",
            "dense f32",
            "nf4",
            "nf4 ÷ f32",
            "LLM.int8",
            "int8 ÷ f32",
            "GPTQ 4 bit",
            "GPTQ ÷ f32",
        ],
    );
    for rows in found.chunk_by(|a, b| (a.shape, a.rows) == (b.shape, b.rows)) {
        let Some((dense, packed)) = rows.split_first() else {
            continue;
        };
        let millis = |seconds: f64| number(seconds * 1e3);
        let mut cells = vec![
            format!("{} × {}", dense.shape[0], dense.shape[1]),
            dense.rows.to_string(),
            millis(dense.floor_seconds),
            millis(dense.seconds()),
        ];
        for row in packed {
            cells.push(millis(row.seconds()));
            cells.push(number(row.seconds() / dense.seconds()));
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_weights_are_measured_and_shown() {
        let weights = weights([256, 128]).unwrap();
        for (name, weight) in &weights {
            assert_eq!(weight.shape(), [256, 128], "{name}");
        }
        let found = measure_rows(&weights, 4, 1e9);
        assert!(found.iter().all(|row| row.seconds() > 0.0));
        assert_eq!(found[0].floor_seconds, 4.0 * 4.0 * 256.0 * 128.0 / 1e9);
        let text = table(&found).markdown();
        assert!(text.contains("| 256 × 128 | 4 | 0.524 |"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }

    #[test]
    fn packed_weights_are_as_small_as_their_codes() {
        let weights = weights([256, 128]).unwrap();
        let bytes = weights.map(|(_, weight)| weight.packed_bytes());
        assert_eq!(bytes[0], 256 * 128 * 4);
        assert_eq!(bytes[1], 256 * 128 / 2 + (512 + 16) * 4);
        assert_eq!(bytes[2], 256 * 128 + 256 * 4);
        assert_eq!(bytes[3], 256 * 128 / 2 + 256 * 3);
    }
}
