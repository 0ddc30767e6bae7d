//! Losses with products in f32 and in bf16, as `scripts/compute_dtypes.py` measured them.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::Figures;

#[derive(Deserialize)]
struct Runs {
    f32: Run,
    bf16: Run,
}

#[derive(Deserialize)]
struct Run {
    eval_loss: f64,
    losses: Vec<f64>,
}

/// What `docs/performance.md` says of both.
pub fn figures(docs: &Path) -> Result<Figures> {
    let Runs { f32, bf16 } = super::results(docs, "compute_dtypes.json")?;
    let pairs = f32.losses.iter().zip(&bf16.losses);
    let mut apart: Vec<f64> = pairs.map(|(f32, bf16)| (bf16 - f32).abs() / f32).collect();
    apart.sort_by(f64::total_cmp);
    let percent = |value: Option<&f64>| format!("{:.1} %", 100.0 * value.unwrap_or(&f64::NAN));
    Ok(Figures::from([
        ("compute-dtypes-steps", f32.losses.len().to_string()),
        ("compute-dtypes-median", percent(apart.get(apart.len() / 2))),
        ("compute-dtypes-most", percent(apart.last())),
        (
            "compute-dtypes-eval",
            format!("{:.4} and {:.4}", f32.eval_loss, bf16.eval_loss),
        ),
    ]))
}
