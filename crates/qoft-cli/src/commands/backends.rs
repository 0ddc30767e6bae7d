//! `qoft backends`.

use anyhow::Result;
use qoft::SCHEMES;
use qoft::core::Registry;
use serde_json::json;

use crate::args::BackendsArgs;
use crate::print::outln;

/// Lists the backends in the order in which they are asked.
pub fn run(args: &BackendsArgs) -> Result<()> {
    let registry = Registry::linked()?;
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
        outln!("{}", json!({ "backends": backends }));
        return Ok(());
    }
    outln!(
        "{:<18} {:<10} {:<5} {:<6} {:<6} {:<9} {:<11} {:<8} dtypes",
        "backend",
        "tier",
        "read",
        "train",
        "merge",
        "quantize",
        "dequantize",
        "layers"
    );
    let mark = |can| if can { "yes" } else { "no" };
    for entry in registry.registrations() {
        let can = entry.item().capabilities();
        let layers: Vec<&str> = can.layers.iter().map(|kind| kind.name()).collect();
        let dtypes: Vec<&str> = can.dtypes.iter().map(|dtype| dtype.name()).collect();
        outln!(
            "{:<18} {:<10} {:<5} {:<6} {:<6} {:<9} {:<11} {:<8} {}",
            entry.name(),
            entry.tier().name(),
            mark(!can.layers.is_empty()),
            mark(can.train),
            // Dense layers are merged into without any rounding to codes.
            mark(can.requantize || can.dense),
            mark(can.quantize),
            mark(can.dequantize),
            layers.join(" "),
            dtypes.join(" "),
        );
    }
    let absent = SCHEMES.iter().filter(|scheme| !scheme.built_in);
    let absent: Vec<&str> = absent.map(|scheme| scheme.feature).collect();
    if !absent.is_empty() {
        outln!("not in this build (Cargo features): {}", absent.join(", "));
    }
    Ok(())
}
