//! What a step of each family of models takes, as `scripts/family_table.py` measured it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Figures;

#[derive(Deserialize)]
struct Family {
    #[serde(rename = "family")]
    name: String,
    parameters: u64,
    experts: bool,
    rows: usize,
    tokens: usize,
    threads: usize,
    qoft: Times,
    /// With products in bf16.
    #[serde(default)]
    qoft_bf16: Option<Times>,
    peft: Times,
    versions: BTreeMap<String, String>,
}

/// Of several steps, in seconds.
#[derive(Deserialize)]
struct Times {
    /// What the processors spent, all threads together.
    cpu_seconds: Vec<f64>,
}

impl Times {
    fn least(&self) -> f64 {
        self.cpu_seconds.iter().copied().fold(f64::MAX, f64::min)
    }
}

impl Family {
    fn ratio(&self) -> f64 {
        self.peft.least() / self.qoft.least()
    }

    fn bf16_ratio(&self) -> Option<f64> {
        let qoft = self.qoft_bf16.as_ref()?;
        Some(self.peft.least() / qoft.least())
    }
}

/// The mixture whose step documents explain.
const MIXTURE: &str = "qwen3_moe";

/// What texts say of the families: from the least to the largest ratio.
pub fn figures(docs: &Path) -> Result<Figures> {
    let families = read(docs)?;
    let range = |experts: bool, ratio: &dyn Fn(&Family) -> Option<f64>| {
        let of_kind = families.iter().filter(|family| family.experts == experts);
        let ratios: Vec<f64> = of_kind.filter_map(ratio).collect();
        let [least, most] = [f64::min, f64::max].map(|pick| ratios.iter().copied().reduce(pick));
        let range = least.zip(most);
        range.map_or_else(String::new, |(least, most)| {
            format!("{least:.1} to {most:.1}")
        })
    };
    let mixture = families.iter().find(|family| family.name == MIXTURE);
    let mixture = mixture.with_context(|| format!("families.json has no `{MIXTURE}`"))?;
    Ok(Figures::from([
        ("families-dense", range(false, &|f| Some(f.ratio()))),
        ("families-experts", range(true, &|f| Some(f.ratio()))),
        ("families-dense-bf16", range(false, &Family::bf16_ratio)),
        ("families-experts-bf16", range(true, &Family::bf16_ratio)),
        ("families-qwen3-moe", format!("{:.2}", mixture.qoft.least())),
        (
            "families-qwen3-moe-peft",
            format!("{:.2}", mixture.peft.least()),
        ),
    ]))
}

/// The last part of `docs/benchmarks.md`.
pub fn section(docs: &Path) -> Result<String> {
    let families = read(docs)?;
    let first = families.first().context("families.json has no family")?;
    let versions: Vec<String> = first
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let mut text = format!(
        "\n## Families of models\n\nRandom models of about 100 million parameters in f32, by \
         `scripts/family_table.py`, beside {}: OFT blocks of 32 on all linear layers, AdamW, {} × {} \
         tokens a step, {} threads. The machine was busy with other work most of the time, so these are the seconds \
         that processors spent on a step, of all threads together, the least of several; they leave \
         out what threads wait. All figures are in \
         [benchmarks/families.json](benchmarks/families.json), also times of the clock, which say \
         little there.\n\n\
         | model | experts | parameters, million | qoft | PEFT f32 | PEFT ÷ qoft | qoft bf16 | PEFT f32 ÷ qoft bf16 |\n\
         |---|---|---|---|---|---|---|---|\n",
        versions.join(", "),
        first.rows,
        first.tokens,
        first.threads
    );
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    for family in &families {
        text += &format!(
            "| {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {} | {} |\n",
            family.name,
            if family.experts { "yes" } else { "" },
            family.parameters as f64 / 1e6,
            family.qoft.least(),
            family.peft.least(),
            family.ratio(),
            cell(family.qoft_bf16.as_ref().map(Times::least)),
            cell(family.bf16_ratio()),
        );
    }
    Ok(text)
}

fn read(docs: &Path) -> Result<Vec<Family>> {
    super::results(docs, "families.json")
}
