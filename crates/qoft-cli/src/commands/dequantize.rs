//! `qoft dequantize`.

use anyhow::Result;
use qoft::core::Schemes;

use crate::args::DequantizeArgs;
use crate::print::{errln, outln};
use crate::{files, progress};

/// Writes a dense checkpoint.
pub fn run(args: &DequantizeArgs) -> Result<()> {
    let folder = files::open(&args.model)?;
    let bar = progress::bar("writing", 0);
    let report = qoft::dequantize(
        &folder,
        &Schemes::linked(folder.checkpoint())?,
        &args.output,
        args.dtype.into(),
        &|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    let report = report?;
    errln!(
        "{}: {} quantized layers written dense, {} tensors, {}",
        args.output.display(),
        report.layers,
        report.tensors,
        progress::bytes(report.bytes as u64)
    );
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}
