//! `qoft devices`.

use anyhow::Result;
use qoft::{OTHER_DEVICES, devices};
use serde_json::json;

use crate::args::DevicesArgs;
use crate::print::outln;

/// Lists what can compute on this machine, and what this build lacks.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let kinds = devices();
    if args.json {
        let found = kinds.iter().filter_map(|(_, found)| found.as_ref().ok());
        let found: Vec<_> = found.flatten().collect();
        let missing = kinds.iter().filter_map(|(kind, found)| {
            let reason = found.as_ref().err()?.to_string();
            Some(json!({"name": kind, "reason": reason}))
        });
        let missing: Vec<_> = missing.collect();
        outln!(
            "{}",
            json!({"devices": found, "missing": missing, "features": OTHER_DEVICES})
        );
        return Ok(());
    }
    for (_, found) in kinds {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                outln!("{error}");
                continue;
            }
        };
        for device in found {
            let mut facts = Vec::from_iter(device.model);
            let size = device.largest_buffer;
            facts.extend(size.map(|bytes| format!("buffers of up to {} MiB", bytes >> 20)));
            let able = [(device.tensor_cores, "tensor cores"), (device.bf16, "bf16")];
            facts.extend(
                able.iter()
                    .filter(|(can, _)| *can)
                    .map(|(_, what)| (*what).to_owned()),
            );
            outln!("{:<10} {}", device.name, facts.join(", "));
        }
    }
    if !OTHER_DEVICES.is_empty() {
        outln!(
            "not in this build (Cargo features): {}",
            OTHER_DEVICES.join(", ")
        );
    }
    Ok(())
}
