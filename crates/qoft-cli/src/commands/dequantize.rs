//! `qoft dequantize`.

use anyhow::Result;
use qoft::DequantizeOptions;
use qoft::core::kernels::FloatFormat;

use crate::args::DequantizeArgs;
use crate::print::{errln, outln};
use crate::{files, progress};

/// Writes a dense checkpoint.
pub fn run(args: &DequantizeArgs) -> Result<()> {
    let folder = files::open(&args.model)?;
    let schemes = files::schemes(folder.checkpoint(), &args.backend_option)?;
    let bar = progress::bar("writing", 0);
    let options = DequantizeOptions::from(FloatFormat::from(args.dtype));
    let options = options.max_shard_size(args.max_shard_size.unwrap_or_default());
    let report = qoft::dequantize(&folder, &schemes, &args.output, options, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
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
