//! How long the rows of data are.

use std::ops::Range;

use plotters::prelude::*;

use super::data_row::DataRow;
use super::dataset::Rows;
use super::error::PlotError;

const SIZE: (u32, u32) = (800, 480);

/// Numbers of rows by their length in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LengthHistogram {
    /// Lengths that are counted together, one range after another, and how many rows have them.
    pub bins: Vec<(Range<usize>, usize)>,
}

impl LengthHistogram {
    /// Of the rows of `dataset`, of those with several answers the longest with its prompt, in about `bins` ranges of round numbers.
    #[must_use]
    pub fn new<R: DataRow>(dataset: &Rows<R>, bins: usize) -> Self {
        let lengths = dataset.examples.iter().map(DataRow::longest);
        let longest = lengths.clone().max().unwrap_or(0);
        let width = round_up((longest + 1).div_ceil(bins.max(1)));
        let count = longest / width + 1;
        let mut found: Vec<_> = (0..count)
            .map(|i| (i * width..(i + 1) * width, 0))
            .collect();
        lengths.for_each(|length| found[length / width].1 += 1);
        Self { bins: found }
    }

    /// A picture of it, as SVG.
    ///
    /// # Errors
    /// [`PlotError`] if it cannot be drawn.
    pub fn to_svg(&self) -> Result<String, PlotError> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| PlotError(error.to_string()))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let last = self.bins.last().map_or(1, |(lengths, _)| lengths.end);
        let most = self.bins.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(0..last, 0..most + most / 20 + 1)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("tokens of a row")
            .y_desc("rows")
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 16))
            .draw()?;
        let bars = self.bins.iter().filter(|(_, rows)| *rows > 0);
        chart.draw_series(bars.map(|(lengths, rows)| {
            let corners = [(lengths.start, 0), (lengths.end, *rows)];
            Rectangle::new(corners, BLUE.mix(0.5).filled())
        }))?;
        area.present()?;
        Ok(())
    }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(number: usize) -> usize {
    let mut unit = 1;
    loop {
        for times in [1, 2, 5] {
            if unit * times >= number {
                return unit * times;
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Example};

    #[test]
    fn rows_are_counted_by_length() {
        let row = |length| Example::new(vec![1; length], vec![1; length]);
        let dataset = Dataset::new([row(3), row(19), row(20), row(95)]);
        let histogram = LengthHistogram::new(&dataset, 6);
        let filled = histogram.bins.iter().filter(|(_, rows)| *rows > 0);
        let filled: Vec<_> = filled.cloned().collect();
        assert_eq!(filled, [(0..20, 2), (20..40, 1), (80..100, 1)]);
        let svg = histogram.to_svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("tokens of a row"));
        assert_eq!(LengthHistogram::new(&Dataset::new([]), 6).bins, [(0..1, 0)]);
    }
}
