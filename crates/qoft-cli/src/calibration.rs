//! What layers have as inputs on a data file.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use qoft::models::CausalLm;
use qoft::train::data::{Dataset, Example};
use qoft::{Calibration, CalibrationOptions};

use crate::args::CalibrationArgs;
use crate::progress;

/// Rows of calibration data unless given. More rows bring little more (see docs/merging.md).
const ROWS: usize = 32;

/// The rows that are read.
pub fn rows<'a>(args: &CalibrationArgs, dataset: &'a Dataset) -> &'a [Example] {
    let rows = args.calibration_rows.map_or(ROWS, Into::into);
    &dataset.examples[..rows.min(dataset.examples.len())]
}

/// The inputs of the layers of a model whose paths are `wanted`. The files wait in `folder`.
pub fn collect(
    model: &CausalLm,
    examples: &[Example],
    wanted: &dyn Fn(&str) -> bool,
    folder: &Path,
    device: &Device,
) -> Result<Calibration> {
    let bar = progress::bar("calibrating", 0);
    let calibration = Calibration::collect(
        model,
        examples,
        wanted,
        folder,
        &CalibrationOptions::default(),
        device,
        &mut progress::follow(&bar),
    );
    bar.finish_and_clear();
    Ok(calibration?)
}
