//! `qoft inspect`.

use std::collections::BTreeMap;

use anyhow::Result;
use qoft::{Inspection, LayerReport, Registries, inspect};

use crate::args::InspectArgs;
use crate::files;
use crate::print::outln;
use crate::progress::{bytes, grouped};

/// Prints a checkpoint's layers.
pub fn run(args: &InspectArgs, registries: &Registries) -> Result<()> {
    let folder = files::open(registries, &args.model)?;
    let schemes = files::schemes(registries, folder.checkpoint(), &args.backend_option)?;
    let inspection = inspect(&folder, &schemes)?;
    if args.json {
        outln!("{}", serde_json::to_string(&inspection)?);
    } else {
        print(&inspection, args.all);
    }
    Ok(())
}

fn print(inspection: &Inspection, all: bool) {
    outln!(
        "model type:    {}",
        inspection.model_type.as_deref().unwrap_or("unknown")
    );
    outln!(
        "quant method:  {}",
        inspection.quant_method.as_deref().unwrap_or("none")
    );
    if let Some(reason) = &inspection.unsupported {
        outln!(
            "not supported: {reason}; its layers can be listed and written dense, but the model \
             cannot be trained, evaluated or run"
        );
    }
    outln!();
    outln!(
        "{:<44} {:>6} {:<10} {:<6} {:>4} {:>6} {:>8} {:>8} {:>10}",
        "layer",
        "layers",
        "backend",
        "format",
        "bits",
        "group",
        "in",
        "out",
        "bytes"
    );
    let lines = match all {
        true => inspection.layers.iter().map(Line::new).collect(),
        false => folded(&inspection.layers),
    };
    for Line { name, layer, count } in lines {
        let group = layer.group_size.map_or("-".into(), |size| size.to_string());
        outln!(
            "{:<44} {:>6} {:<10} {:<6} {:>4} {:>6} {:>8} {:>8} {:>10}",
            name,
            count,
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

/// A line of the table.
struct Line<'a> {
    /// A module path, or what several have in common, with `*` for their numbers.
    name: String,
    layer: &'a LayerReport,
    count: usize,
}

impl<'a> Line<'a> {
    fn new(layer: &'a LayerReport) -> Self {
        Self {
            name: layer.name.clone(),
            layer,
            count: 1,
        }
    }
}

/// One line for layers that are equal but for the numbers in their paths.
fn folded(layers: &[LayerReport]) -> Vec<Line<'_>> {
    let pattern = |name: &str| {
        let parts = name.split('.').map(|part| match part.parse::<usize>() {
            Ok(_) => "*",
            Err(_) => part,
        });
        parts.collect::<Vec<_>>().join(".")
    };
    let alike = |a: &LayerReport, b: &LayerReport| {
        let of = |layer: &LayerReport| {
            let mut layer = layer.clone();
            layer.name.clear();
            layer
        };
        of(a) == of(b)
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut known: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for layer in layers {
        let name = pattern(&layer.name);
        let same = known.entry(name.clone()).or_default();
        match same.iter().find(|&&line| alike(lines[line].layer, layer)) {
            Some(&line) => {
                lines[line].name.clone_from(&name);
                lines[line].count += 1;
            }
            None => {
                same.push(lines.len());
                lines.push(Line::new(layer));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, bits: u32) -> LayerReport {
        let mut layer = LayerReport::default();
        layer.name = name.into();
        layer.bits = bits;
        layer
    }

    #[test]
    fn equal_layers_are_one_line() {
        let names = ["model.layers.0.a", "model.layers.0.b", "model.layers.1.a"];
        let mut layers: Vec<LayerReport> = names.map(|name| layer(name, 16)).into();
        layers.push(layer("model.layers.1.b", 4));
        layers.push(layer("lm_head", 16));
        let lines = folded(&layers);
        let lines: Vec<_> = lines.iter().map(|l| (l.name.as_str(), l.count)).collect();
        let expected = [
            ("model.layers.*.a", 2),
            ("model.layers.0.b", 1),
            ("model.layers.1.b", 1),
            ("lm_head", 1),
        ];
        assert_eq!(lines, expected);
    }
}
