//! Charts of what is measured in a run, as SVG.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;

pub(super) const SIZE: (u32, u32) = (800, 480);
/// The smoothed line looks at this share of all points to each side of one.
const SMOOTHING: f64 = 0.05;
/// It looks at so many at least.
const NEIGHBOURS: usize = 3;

/// (step, value) of each step.
pub(super) type Points = [(f64, f64)];

/// What is measured in each step, and beside it what is measured now and then.
pub(super) struct Chart<'a> {
    /// What the values are, at the axis.
    pub(super) name: &'a str,
    /// In each step, and what the line is called.
    pub(super) steps: (&'a Points, &'a str),
    /// Now and then, such as the losses of evaluations.
    pub(super) beside: (&'a Points, &'a str),
}

impl Chart<'_> {
    /// The chart as SVG. There must be steps.
    pub(super) fn draw(&self) -> Result<String, Box<dyn std::error::Error>> {
        let mut svg = String::new();
        self.draw_into(&mut svg)?;
        Ok(svg)
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let ((steps, name), (beside, beside_name)) = (self.steps, self.beside);
        let all = || steps.iter().chain(beside);
        let last = all().map(|p| p.0).fold(1.0, f64::max);
        let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let margin = match high - low {
            0.0 => (0.05 * high.abs()).max(1e-3),
            range => 0.05 * range,
        };

        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            // Whole numbers have whole labels.
            .build_cartesian_2d(0..last as usize, (low - margin)..(high + margin))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("step")
            .y_desc(self.name)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 16))
            .draw()?;
        let place = |&(step, value): &(f64, f64)| (step as usize, value);
        let mut line = |points: Vec<(f64, f64)>, label: &str, style: ShapeStyle| {
            labelled_line(&mut chart, points.iter().map(place), label, style)
        };
        line(steps.to_vec(), name, BLUE.mix(0.3).stroke_width(1))?;
        let smooth_name = format!("{name}, smoothed");
        line(
            smoothed(steps, SMOOTHING),
            &smooth_name,
            BLUE.stroke_width(2),
        )?;
        if !beside.is_empty() {
            line(beside.to_vec(), beside_name, RED.stroke_width(2))?;
        }
        // A line of one point cannot be seen.
        let only = steps.iter().filter(|_| steps.len() == 1);
        let dots = only.map(|point| (point, BLUE));
        let dots = dots.chain(beside.iter().map(|point| (point, RED)));
        chart
            .draw_series(dots.map(|(point, color)| Circle::new(place(point), 3, color.filled())))?;
        // Losses fall: there is room.
        legend(&mut chart, SeriesLabelPosition::UpperRight)?;
        area.present()?;
        Ok(())
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a line that the legend has too.
pub(super) fn labelled_line<'a, DB, CT>(
    chart: &mut ChartContext<'a, DB, CT>,
    points: impl IntoIterator<Item = CT::From>,
    label: impl Into<String>,
    style: ShapeStyle,
) -> Drawn
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    CT: CoordTranslate,
    CT::From: Clone + 'static,
{
    let series = chart.draw_series(LineSeries::new(points, style))?;
    series
        .label(label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    Ok(())
}

/// Draws the legend.
pub(super) fn legend<'a, DB, CT>(
    chart: &mut ChartContext<'a, DB, CT>,
    position: SeriesLabelPosition,
) -> Drawn
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    CT: CoordTranslate,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

/// A line fitted to the points around each one (local linear regression): it follows a slope, also
/// at both ends, where a moving average would lag behind. It looks at a `share` of all points to
/// each side.
pub(super) fn smoothed(points: &Points, share: f64) -> Vec<(f64, f64)> {
    let reach = ((points.len() as f64 * share) as usize).max(NEIGHBOURS);
    // Sums over the points before each one, with their numbers as places: 1, i, i², y, i·y.
    let mut sums = vec![[0.0; 4]];
    for (i, (_, y)) in points.iter().enumerate() {
        let (i, before) = (i as f64, sums[sums.len() - 1]);
        let terms = [i, i * i, *y, i * y];
        sums.push(std::array::from_fn(|k| before[k] + terms[k]));
    }
    let fit = |(place, &(x, y)): (usize, &(f64, f64))| {
        let (from, to) = (
            place.saturating_sub(reach),
            (place + reach + 1).min(points.len()),
        );
        let [i, ii, y_sum, iy]: [f64; 4] = std::array::from_fn(|k| sums[to][k] - sums[from][k]);
        let count = (to - from) as f64;
        let spread = count * ii - i * i;
        if spread <= 0.0 {
            return (x, y);
        }
        let slope = (count * iy - i * y_sum) / spread;
        (x, y_sum / count + slope * (place as f64 - i / count))
    };
    points.iter().enumerate().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_labelled_axes_and_lines() {
        let losses: Vec<_> = (1..=50)
            .map(|i| (f64::from(i), 3.0 / f64::from(i)))
            .collect();
        let chart = Chart {
            name: "loss",
            steps: (&losses, "training"),
            beside: (&[(25.0, 1.0), (50.0, 0.5)], "evaluation"),
        };
        let svg = chart.draw().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.matches("<polyline").count() >= 3);
        let texts: Vec<&str> = svg.lines().map(str::trim).collect();
        for text in [
            "step",
            "loss",
            "training",
            "training, smoothed",
            "evaluation",
        ] {
            assert!(texts.contains(&text), "{text}");
        }
    }

    #[test]
    fn a_single_step_can_be_drawn() {
        let chart = Chart {
            name: "loss",
            steps: (&[(1.0, 2.0)], "training"),
            beside: (&[], "evaluation"),
        };
        let svg = chart.draw().unwrap();
        assert!(!svg.contains("NaN"));
        assert!(svg.contains("<circle"));
        let texts: Vec<&str> = svg.lines().map(str::trim).collect();
        let labels = |label| texts.iter().filter(|text| **text == label).count();
        assert_eq!((labels("0"), labels("1")), (1, 1), "{texts:?}");
    }

    #[test]
    fn smoothing_keeps_a_line_from_its_first_to_its_last_point() {
        let points: Vec<_> = (1..=200)
            .map(|i| (f64::from(i), 5.0 - 0.02 * f64::from(i)))
            .collect();
        for ((_, smooth), (_, y)) in smoothed(&points, SMOOTHING).iter().zip(&points) {
            assert!((smooth - y).abs() < 1e-9);
        }
        assert_eq!(smoothed(&[(1.0, 2.0)], SMOOTHING), [(1.0, 2.0)]);
    }

    #[test]
    fn smoothing_lies_among_points_that_fall_fast() {
        let points: Vec<_> = (1..=100)
            .map(|i| (f64::from(i), 2.0 + 3.0 * (-f64::from(i) / 10.0).exp()))
            .collect();
        for ((_, smooth), (_, y)) in smoothed(&points, SMOOTHING).iter().zip(&points) {
            assert!((smooth - y).abs() < 0.1, "{smooth} {y}");
        }
    }
}
