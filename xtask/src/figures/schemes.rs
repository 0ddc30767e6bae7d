//! One model in every scheme, as `scripts/scheme_table.py` measured it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Figures;

/// A model in one scheme.
#[derive(Deserialize)]
struct Measured {
    model: String,
    backend: String,
    /// With scales and zero points, of the quantized layers.
    bits_per_weight: f64,
    file_mib: f64,
    loss_before: f64,
    loss_after: f64,
    loss_merged: f64,
    /// The share of the change that a merge by the nearest codes keeps.
    kept: f64,
}

/// Names in the file, and what the document calls the model, in the order of the table.
const ROWS: &[[&str; 2]] = &[
    ["f32", "f32"],
    ["int8", "LLM.int8"],
    ["nf4", "nf4, double quantization"],
    ["bnb-fp4", "fp4"],
    ["eetq", "EETQ, sm80"],
    ["aqlm2x8", "AQLM 2x8, groups of 8"],
    ["awq4", "AWQ, groups of 64"],
    ["gptq4", "GPTQ 4 bit, groups of 64"],
    ["auto-round4", "AutoRound 4 bit, groups of 64"],
    ["hqq4", "HQQ 4 bit, groups of 64"],
    ["hqq2", "HQQ 2 bit, groups of 16, f16"],
    ["inc-fp8", "INC FP8, QDQ by tensor"],
    ["fp8-row", "FP8 of transformers, by tensor"],
    ["fp8-block", "FP8 of transformers, blocks of 64 × 64"],
    ["ct-int4", "int4, groups of 64"],
    ["ct-int8", "int8, by tensor"],
    ["ct-fp8", "FP8, by tensor"],
    ["ct-mxfp4", "MXFP4"],
    ["ct-nvfp4", "NVFP4"],
    ["gguf-q4_0", "GGUF Q4_0"],
    ["gguf-q4_k_m", "GGUF Q4_K_M"],
    ["gguf-q8_0", "GGUF Q8_0"],
    ["mlx4", "MLX 4 bit, groups of 64"],
    ["modelopt-nvfp4", "NVFP4 of modelopt"],
    ["mxfp4", "MXFP4 of transformers"],
    ["torchao-int8", "torchao int8, by row"],
    ["torchao-int4", "torchao int4, groups of 64"],
    ["torchao-fp8", "torchao FP8, by row"],
];

/// The table of `docs/schemes.md`.
pub fn figures(docs: &Path) -> Result<Figures> {
    let measured: Vec<Measured> = super::results(docs, "schemes.json")?;
    let place = |found: &Measured| {
        let place = ROWS.iter().position(|[name, _]| *name == found.model);
        place.with_context(|| format!("`{}` of schemes.json has no title", found.model))
    };
    let places = measured.iter().map(place).collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<_> = places.into_iter().zip(&measured).collect();
    rows.sort_by_key(|(place, _)| *place);
    let mut table =
        "\n\n| model | backend | bits a weight | weight files, MiB | loss before | after | merged \
                     | kept |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (place, found) in rows {
        let cells = [
            ROWS[place][1].to_owned(),
            found.backend.clone(),
            format!("{:.2}", found.bits_per_weight),
            format!("{:.0}", found.file_mib),
            format!("{:.3}", found.loss_before),
            format!("{:.3}", found.loss_after),
            format!("{:.3}", found.loss_merged),
            format!("{:.0} %", 100.0 * found.kept),
        ];
        table += &format!("| {} |\n", cells.join(" | "));
    }
    Ok(Figures::from([("schemes", table + "\n")]))
}
