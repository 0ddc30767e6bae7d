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
            .backends()
            .map(|b| json!({"name": b.name(), "capabilities": b.capabilities()}))
            .collect();
        outln!("{}", json!({ "backends": backends }));
        return Ok(());
    }
    outln!(
        "{:<12} {:<6} {:<11} {:<11} {:<8} dtypes",
        "backend",
        "train",
        "dequantize",
        "requantize",
        "layers"
    );
    let mark = |can| if can { "yes" } else { "no" };
    for backend in registry.backends() {
        let can = backend.capabilities();
        let layers: Vec<&str> = can.layers.iter().map(|kind| kind.name()).collect();
        let dtypes: Vec<&str> = can.dtypes.iter().map(|dtype| dtype.name()).collect();
        outln!(
            "{:<12} {:<6} {:<11} {:<11} {:<8} {}",
            backend.name(),
            mark(can.train),
            mark(can.dequantize),
            mark(can.requantize),
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
