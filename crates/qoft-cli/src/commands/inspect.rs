//! `qoft inspect`.

use std::collections::BTreeMap;

use anyhow::Result;
use qoft::core::Schemes;
use qoft::{Inspection, inspect};

use crate::args::InspectArgs;
use crate::files;
use crate::print::outln;
use crate::progress::{bytes, grouped};

/// Prints a checkpoint's layers.
pub fn run(args: &InspectArgs) -> Result<()> {
    let folder = files::open(&args.model)?;
    let inspection = inspect(&folder, &Schemes::linked(folder.checkpoint())?)?;
    if args.json {
        outln!("{}", serde_json::to_string(&inspection)?);
    } else {
        print(&inspection);
    }
    Ok(())
}

fn print(inspection: &Inspection) {
    outln!(
        "model type:    {}",
        inspection.model_type.as_deref().unwrap_or("unknown")
    );
    outln!(
        "quant method:  {}",
        inspection.quant_method.as_deref().unwrap_or("none")
    );
    outln!();
    outln!(
        "{:<44} {:<10} {:<6} {:>4} {:>6} {:>8} {:>8} {:>10}",
        "layer",
        "backend",
        "format",
        "bits",
        "group",
        "in",
        "out",
        "bytes"
    );
    for layer in &inspection.layers {
        let group = layer.group_size.map_or("-".into(), |size| size.to_string());
        outln!(
            "{:<44} {:<10} {:<6} {:>4} {:>6} {:>8} {:>8} {:>10}",
            layer.name,
            layer.backend,
            layer.format,
            layer.bits,
            group,
            layer.in_features,
            layer.out_features,
            bytes(layer.packed_bytes as u64)
        );
    }
    let mut backends: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in &inspection.layers {
        *backends.entry(layer.backend).or_default() += 1;
    }
    let backends: Vec<String> = backends.iter().map(|(b, n)| format!("{n} {b}")).collect();
    outln!();
    outln!(
        "linear layers: {} ({})",
        inspection.layers.len(),
        backends.join(", ")
    );
    for line in contested(inspection) {
        outln!("{line}");
    }
    outln!(
        "parameters:    {} in linear layers, {} elsewhere",
        grouped(inspection.linear_parameters),
        grouped(inspection.other_parameters)
    );
    let bits = inspection.packed_bytes as f64 * 8.0 / inspection.linear_parameters.max(1) as f64;
    outln!(
        "size:          {} packed ({bits:.2} bits a weight), files {}",
        bytes(inspection.packed_bytes as u64),
        bytes(inspection.file_bytes)
    );
}

/// Which backends would have had layers that others got.
fn contested(inspection: &Inspection) -> Vec<String> {
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for layer in &inspection.layers {
        for other in &layer.also_claimed_by {
            *pairs.entry((other, layer.backend)).or_default() += 1;
        }
    }
    let line = |((other, owner), count)| {
        format!("               {other} claims {count} layers of {owner} too, and is asked later")
    };
    pairs.into_iter().map(line).collect()
}
