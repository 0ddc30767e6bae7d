//! `loss.svg`: the losses of a run as a chart.

use std::path::Path;

use plotters::prelude::*;
use qoft_core::write_file;

use super::log::Log;
use crate::error::TrainError;

const NAME: &str = "loss.svg";
const SIZE: (u32, u32) = (800, 480);
/// Weight of the steps before in the smoothed line.
const SMOOTHING: f64 = 0.9;

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
    let margin = ((high - low) * 0.05).max(1e-3);

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, (low - margin)..(high + margin))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 16))
        .draw()?;
    let mut line = |points: Vec<(f64, f64)>, label: &str, style: ShapeStyle| {
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
        let dots = eval_losses.iter();
        chart.draw_series(dots.map(|point| Circle::new(*point, 3, RED.filled())))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The moving average, free of the bias towards its start.
fn smoothed(points: &Points) -> Vec<(f64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    let smooth = |&(x, y): &(f64, f64)| {
        sum = SMOOTHING * sum + (1.0 - SMOOTHING) * y;
        weight = SMOOTHING * weight + (1.0 - SMOOTHING);
        (x, sum / weight)
    };
    points.iter().map(smooth).collect()
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
    }

    #[test]
    fn smoothing_keeps_a_constant() {
        for (_, y) in smoothed(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]) {
            assert!((y - 2.0).abs() < 1e-12);
        }
    }
}
