//! Options of the commands that choose codes by what layers have as inputs.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// Calibration data.
#[derive(Debug, Args)]
pub struct CalibrationArgs {
    /// A data file whose rows the model reads first: codes are then chosen so that errors cancel
    /// each other in what layers compute of such data.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Rows of the calibration data that are read, from the front [default: 32].
    #[arg(long, value_name = "N", requires = "calibration")]
    pub calibration_rows: Option<NonZeroUsize>,
}
