//! `loss.svg`: the losses of a run as a chart.

use std::path::Path;

use qoft_core::write_file;

use super::chart::Chart;
use super::log::Log;
use crate::error::TrainError;

pub(super) const NAME: &str = "loss.svg";

/// Writes the chart of `log` into `folder`. Without steps nothing is written.
pub(super) fn write(log: &Log, folder: &Path) -> Result<(), TrainError> {
    let losses = log.losses();
    if losses.is_empty() {
        return Ok(());
    }
    let chart = Chart {
        name: "loss",
        steps: (&losses, "training"),
        beside: (&log.eval_losses(), "evaluation"),
    };
    let svg = chart.draw().map_err(|e| TrainError::Plot(e.to_string()))?;
    write_file(&folder.join(NAME), svg.as_bytes())?;
    Ok(())
}
