//! `loss.svg`: the losses of a run as a chart.

use std::path::Path;

use plotters::prelude::*;
use qoft_core::write_file;

use super::log::Log;
use crate::error::TrainError;

const NAME: &str = "loss.svg";
const SIZE: (u32, u32) = (800, 480);
/// The smoothed line looks at this share of all steps to each side of a step, and at some at least.
const SMOOTHING: f64 = 0.05;
const NEIGHBOURS: usize = 3;

type Points = [(f64, f64)];

/// Writes the chart of `log` into `folder`. Without steps nothing is written.
pub(super) fn write(log: &Log, folder: &Path) -> Result<(), TrainError> {
    let losses = log.losses();
    if losses.is_empty() {
        return Ok(());
    }
    let mut svg = String::new();
    draw(&mut svg, &losses, &log.eval_losses()).map_err(|e| TrainError::Plot(e.to_string()))?;
    write_file(&folder.join(NAME), svg.as_bytes())?;
    Ok(())
}

fn draw(
    svg: &mut String,
    losses: &Points,
    eval_losses: &Points,
) -> Result<(), Box<dyn std::error::Error>> {
    let all = || losses.iter().chain(eval_losses);
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
        .y_desc("loss")
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 16))
        .draw()?;
    let place = |&(step, loss): &(f64, f64)| (step as usize, loss);
    let mut line = |points: Vec<(f64, f64)>, label: &str, style: ShapeStyle| {
        let points = points.iter().map(place);
        let series = chart.draw_series(LineSeries::new(points, style))?;
        series
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    line(losses.to_vec(), "training", BLUE.mix(0.3).stroke_width(1))?;
    line(smoothed(losses), "training, smoothed", BLUE.stroke_width(2))?;
    if !eval_losses.is_empty() {
        line(eval_losses.to_vec(), "evaluation", RED.stroke_width(2))?;
    }
    // A line of one point cannot be seen.
    let only = losses.iter().filter(|_| losses.len() == 1);
    let dots = only.map(|point| (point, BLUE));
    let dots = dots.chain(eval_losses.iter().map(|point| (point, RED)));
    chart.draw_series(dots.map(|(point, color)| Circle::new(place(point), 3, color.filled())))?;
    chart
        .configure_series_labels()
        // Losses fall: there is room.
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// A line fitted to the points around each one (local linear regression): it follows a slope, also
/// at both ends, where a moving average would lag behind.
fn smoothed(points: &Points) -> Vec<(f64, f64)> {
    let reach = ((points.len() as f64 * SMOOTHING) as usize).max(NEIGHBOURS);
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
        let mut svg = String::new();
        draw(&mut svg, &losses, &[(25.0, 1.0), (50.0, 0.5)]).unwrap();
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
        let mut svg = String::new();
        draw(&mut svg, &[(1.0, 2.0)], &[]).unwrap();
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
        for ((_, smooth), (_, y)) in smoothed(&points).iter().zip(&points) {
            assert!((smooth - y).abs() < 1e-9);
        }
        assert_eq!(smoothed(&[(1.0, 2.0)]), [(1.0, 2.0)]);
    }

    #[test]
    fn smoothing_lies_among_points_that_fall_fast() {
        let points: Vec<_> = (1..=100)
            .map(|i| (f64::from(i), 2.0 + 3.0 * (-f64::from(i) / 10.0).exp()))
            .collect();
        for ((_, smooth), (_, y)) in smoothed(&points).iter().zip(&points) {
            assert!((smooth - y).abs() < 0.1, "{smooth} {y}");
        }
    }
}
