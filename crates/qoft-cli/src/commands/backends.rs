//! `qoft backends`.

use anyhow::Result;
use qoft::core::Entry;
use qoft::{Registries, SCHEMES};
use serde_json::json;

use crate::args::BackendsArgs;
use crate::print::outln;

/// Lists the backends and file formats in the order in which they are asked.
pub fn run(args: &BackendsArgs, registries: &Registries) -> Result<()> {
    let (registry, formats) = (&registries.schemes, &registries.containers);
    if args.json {
        let backends: Vec<_> = registry
            .registrations()
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name(),
                    "tier": entry.tier(),
                    "order": entry.order(),
                    "capabilities": entry.item().capabilities(),
                    "settings": entry.item().settings(),
                })
            })
            .collect();
        let formats = formats.registrations().iter();
        let formats = formats.map(|entry| {
            json!({
                "name": entry.name(),
                "tier": entry.tier(),
                "order": entry.order(),
                "written_with": entry.item().writer().map(|writer| writer.number_types()),
            })
        });
        let formats: Vec<_> = formats.collect();
        outln!(
            "{}",
            json!({ "backends": backends, "file_formats": formats })
        );
        return Ok(());
    }
    outln!(
        "{:<18} {:<10} {:<5} {:<6} {:<6} {:<9} {:<11} layers",
        "backend",
        "tier",
        "read",
        "train",
        "merge",
        "quantize",
        "dequantize"
    );
    let mark = |can| if can { "yes" } else { "no" };
    for entry in registry.registrations() {
        let can = entry.item().capabilities();
        let layers: Vec<&str> = can.layers.iter().map(|kind| kind.name()).collect();
        outln!(
            "{:<18} {:<10} {:<5} {:<6} {:<6} {:<9} {:<11} {}",
            entry.name(),
            entry.tier().name(),
            mark(!can.layers.is_empty()),
            mark(can.train),
            // Dense layers are merged into without any rounding to codes.
            mark(can.requantize || can.dense),
            mark(can.quantize),
            mark(can.dequantize),
            layers.join(" "),
        );
    }
    let written = formats.containers().filter_map(|format| {
        let numbers = format.writer()?.number_types().join(" ");
        Some(format!(
            "{} files are written with numbers of: {numbers}",
            format.name()
        ))
    });
    let written: Vec<String> = written.collect();
    let formats = formats.registrations().iter();
    let formats = ["safetensors"].into_iter().chain(formats.map(Entry::name));
    let formats: Vec<&str> = formats.collect();
    outln!("file formats: {}", formats.join(", "));
    for line in written {
        outln!("{line}");
    }
    let absent = SCHEMES.iter().filter(|scheme| !scheme.built_in);
    let absent: Vec<&str> = absent.map(|scheme| scheme.feature).collect();
    if !absent.is_empty() {
        outln!("not in this build (Cargo features): {}", absent.join(", "));
    }
    Ok(())
}
