//! Options of `lr-find`.

use std::path::PathBuf;

use clap::Args;

use super::TrainArgs;
use super::values::finite;

/// Options of `lr-find`: those of `train`, of which `--max-steps` is 100 if absent, and rates.
#[derive(Debug, Args)]
pub struct LrFindArgs {
    /// The first learning rate.
    #[arg(long, default_value_t = 1e-6, value_parser = finite, help_heading = "Search")]
    pub start_lr: f64,
    /// The last one, if the loss does not grow without bound before.
    #[arg(long, default_value_t = 1.0, value_parser = finite, help_heading = "Search")]
    pub end_lr: f64,
    /// The SVG file for the picture of the losses.
    #[arg(
        long,
        default_value = "lr-find.svg",
        value_name = "FILE",
        help_heading = "Search"
    )]
    pub plot: PathBuf,
    /// The training whose rate is looked for.
    #[command(flatten)]
    pub train: TrainArgs,
}
