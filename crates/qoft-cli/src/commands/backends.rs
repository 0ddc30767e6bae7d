//! `qoft backends`.

use anyhow::Result;
use qoft::core::Registry;
use serde_json::json;

use crate::args::BackendsArgs;

/// Lists the backends in the order in which they are asked.
pub fn run(args: &BackendsArgs) -> Result<()> {
    let registry = Registry::linked()?;
    if args.json {
        let backends: Vec<_> = registry
            .backends()
            .map(|b| json!({"name": b.name(), "capabilities": b.capabilities()}))
            .collect();
        println!("{}", json!({ "backends": backends }));
        return Ok(());
    }
    println!("{:<12} {:<6} dequantize", "backend", "train");
    for backend in registry.backends() {
        let can = backend.capabilities();
        let mark = |can| if can { "yes" } else { "no" };
        println!(
            "{:<12} {:<6} {}",
            backend.name(),
            mark(can.train),
            mark(can.dequantize)
        );
    }
    Ok(())
}
