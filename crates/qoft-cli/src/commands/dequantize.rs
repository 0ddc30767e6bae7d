//! `qoft dequantize`.

use anyhow::Result;
use qoft::core::Purpose;
use qoft::core::kernels::FloatFormat;
use qoft::{DequantizeOptions, Registries};

use crate::args::DequantizeArgs;
use crate::print::{errln, outln, warnln};
use crate::{files, progress};

/// Writes a dense checkpoint.
pub fn run(args: &DequantizeArgs, registries: &Registries) -> Result<()> {
    let folder = files::open(registries, &args.model)?;
    let schemes = files::schemes(registries, folder.checkpoint(), &args.backend_option)?;
    let bar = progress::bar("writing", 0);
    let dtype = FloatFormat::from(args.dtype);
    let values = match args.unrounded {
        true => Purpose::Forward,
        false => Purpose::Dequantize,
    };
    let options = DequantizeOptions::from(dtype).values(values);
    let options = options.max_shard_size(args.max_shard_size.unwrap_or_default());
    let report = qoft::dequantize(
        &folder,
        &schemes,
        &args.output,
        options,
        &progress::follow(&bar),
    );
    bar.finish_and_clear();
    let report = report?;
    errln!(
        "{}: {} quantized layers written dense in {}, {} tensors, {}",
        args.output.display(),
        report.layers,
        dtype.torch_name(),
        report.tensors,
        progress::bytes(report.bytes as u64)
    );
    if report.rounded > 0 {
        warnln!(
            "the weights of {} layers are rounded as the library of their scheme rounds them, to the \
             dtype that they had before they were quantized; here the model computes with them \
             unrounded, so its loss differs a little from that of {}: --unrounded writes them so",
            report.rounded,
            args.output.display()
        );
    }
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}
