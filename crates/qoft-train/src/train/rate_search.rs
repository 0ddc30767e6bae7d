//! The search for a learning rate: a short run in which it rises from step to step.
//!
//! The range test of Smith, "Cyclical Learning Rates for Training Neural Networks"
//! (arXiv:1506.01186), with the two suggestions of fastai's `lr_find`: where the loss falls fastest,
//! and a tenth of where it is lowest.

use plotters::prelude::*;

use super::chart::{SIZE, labelled_line, legend, smoothed};
use crate::error::{TrainError, invalid};

/// The share of all losses, to each side, that a smoothed one is made from.
const SMOOTHING: f64 = 0.1;
/// The run ends when the mean of some losses is so many times the lowest such mean.
const DIVERGED: f64 = 4.0;
/// Losses of such a mean.
const RECENT: usize = 5;

/// Rates that rise, and the losses that were found with them.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSearch {
    rates: Vec<f64>,
    losses: Vec<f64>,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FoundRate {
    /// The rate at which the loss falls fastest.
    pub steepest: f64,
    /// The rate at which the loss is lowest; a tenth of it is another usual choice.
    pub lowest: f64,
}

impl RateSearch {
    /// `steps` rates from `start` to `end`, each the same number of times the one before.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the rates do not rise from more than 0, or are fewer than 2.
    pub fn new(start: f64, end: f64, steps: usize) -> Result<Self, TrainError> {
        if !(start > 0.0 && start.is_finite()) {
            return Err(invalid(
                "start_lr",
                format!("must be more than 0, not {start}"),
            ));
        }
        if !(end > start && end.is_finite()) {
            return Err(invalid(
                "end_lr",
                format!("must be more than start_lr, not {end}"),
            ));
        }
        if steps < 2 {
            return Err(invalid(
                "max_steps",
                format!("must be at least 2, not {steps}"),
            ));
        }
        let growth = (end / start).ln() / (steps - 1) as f64;
        Ok(Self {
            rates: (0..steps)
                .map(|i| start * (growth * i as f64).exp())
                .collect(),
            losses: Vec::new(),
        })
    }

    /// The learning rate of each step, for [`Trainer::rates`](super::Trainer::rates).
    #[must_use]
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// The losses that were taken.
    #[must_use]
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Takes the loss of the next step, and tells whether it is worth going on.
    pub fn add(&mut self, loss: f64) -> bool {
        self.losses.push(loss);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let means = self.losses.windows(RECENT).map(mean);
        let lowest = means.fold(f64::INFINITY, f64::min);
        let recent = &self.losses[self.losses.len().saturating_sub(RECENT)..];
        loss.is_finite() && mean(recent) <= DIVERGED * lowest
    }

    /// What the losses say; nothing where they never fell. The loss of a step is that before its
    /// update, so it belongs to the rate of the step before.
    #[must_use]
    pub fn found(&self) -> Option<FoundRate> {
        let points = smoothed(&self.points(), SMOOTHING);
        let lowest = points.iter().map(|point| point.1);
        let lowest = lowest.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?.0;
        let slope = |pair: &[(f64, f64)]| pair[1].1 - pair[0].1;
        let falling = points[..=lowest].windows(2);
        let steepest = falling.min_by(|a, b| slope(a).total_cmp(&slope(b)))?;
        (slope(steepest) < 0.0).then_some(FoundRate {
            steepest: steepest[1].0,
            lowest: points[lowest].0,
        })
    }

    /// (rate, loss after its step).
    fn points(&self) -> Vec<(f64, f64)> {
        let after = self.losses.iter().skip(1).copied();
        let points = self.rates.iter().copied().zip(after);
        points.filter(|(_, loss)| loss.is_finite()).collect()
    }

    /// The losses over the rates as SVG, with what was found.
    ///
    /// # Errors
    /// [`TrainError::Plot`], also if there are fewer than two losses to draw.
    pub fn to_svg(&self) -> Result<String, TrainError> {
        let mut svg = String::new();
        self.draw_into(&mut svg)
            .map_err(|error| TrainError::Plot(error.to_string()))?;
        Ok(svg)
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let raw = self.points();
        let smooth = smoothed(&raw, SMOOTHING);
        let (Some(first), Some(last)) =
            (smooth.first(), smooth.last().filter(|_| smooth.len() > 1))
        else {
            return Err("fewer than two losses were measured".into());
        };
        // Where the loss grows without bound is of no interest.
        let low = raw.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = smooth.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let margin = (0.05 * (high - low)).max(1e-3);
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (first.0..last.0).log_scale(),
                (low - margin)..(high + margin),
            )?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("learning rate")
            .y_desc("loss")
            .x_label_formatter(&|rate| format!("{rate:.0e}"))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 16))
            .draw()?;
        for (points, label, style) in [
            (raw, "loss", BLUE.mix(0.3).stroke_width(1)),
            (smooth, "loss, smoothed", BLUE.stroke_width(2)),
        ] {
            labelled_line(&mut chart, points, label, style)?;
        }
        if let Some(found) = self.found() {
            let rate = found.steepest;
            let ends = [(rate, low - margin), (rate, high + margin)];
            let label = format!("steepest, at {rate:.1e}");
            labelled_line(&mut chart, ends, label, RED.stroke_width(2))?;
        }
        legend(&mut chart, SeriesLabelPosition::LowerLeft)?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(loss: impl Fn(f64) -> f64) -> RateSearch {
        let mut search = RateSearch::new(1e-6, 1.0, 200).unwrap();
        search.add(4.0);
        for rate in search.rates().to_vec() {
            if !search.add(loss(rate)) {
                break;
            }
        }
        search
    }

    #[test]
    fn the_rate_is_where_the_loss_falls_fastest() {
        // Falls between 1e-4 and 1e-2, and grows without bound above.
        let valley = |rate: f64| {
            let at = (rate.log10() + 3.0) * 3.0;
            4.0 - 2.0 / (1.0 + (-at).exp()) + (rate / 0.1).powi(2)
        };
        let search = searched(valley);
        let found = search.found().unwrap();
        assert!((1e-3..2e-2).contains(&found.steepest), "{found:?}");
        assert!(found.lowest > found.steepest, "{found:?}");
        let rates = search.rates();
        assert_eq!((rates[0], rates.len()), (1e-6, 200));
        assert!((rates[199] - 1.0).abs() < 1e-12);
        let svg = search.to_svg().unwrap();
        assert!(svg.contains("learning rate") && svg.contains("steepest, at"));
    }

    #[test]
    fn a_loss_that_explodes_ends_the_search() {
        let search = searched(|rate| if rate < 1e-3 { 2.0 } else { 1e4 });
        assert!(search.losses.len() < 120, "{}", search.losses.len());
        assert_eq!(searched(|_| f64::NAN).losses.len(), 2);
    }

    #[test]
    fn a_loss_that_only_rises_finds_nothing() {
        assert_eq!(searched(|rate| 4.0 + rate).found(), None);
        assert!(RateSearch::new(1e-3, 1e-4, 10).is_err());
        assert!(RateSearch::new(0.0, 1e-4, 10).is_err());
    }
}
