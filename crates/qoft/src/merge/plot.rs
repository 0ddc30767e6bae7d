//! The errors of merged layers as two charts.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use qoft_core::{Result, write_file};

use super::report::MergedLayer;

const PLOT: &str = "merge_report.svg";
const SIZE: (u32, u32) = (900, 760);
/// Height of the upper chart.
const UPPER: u32 = 400;
/// Width of the column with the names of the series.
const LEGEND: u32 = 170;
/// Numbers on the vertical axes, at most.
const TICKS: usize = 12;
const SHARES: usize = 6;
/// Colors of the series, one after another: all of them dark enough for small dots on white.
const COLORS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(230, 110, 0),
    RGBColor(0, 150, 170),
    RGBColor(227, 60, 170),
    RGBColor(140, 86, 75),
    RGBColor(110, 110, 110),
    RGBColor(150, 150, 20),
];

/// Writes the charts of [`draw`] as `merge_report.svg` into a folder.
pub fn write(layers: &[MergedLayer], folder: &Path) -> Result<()> {
    let path = folder.join(PLOT);
    let svg = draw(layers).map_err(|e| qoft_core::Error::file(&path, e))?;
    write_file(&path, svg.as_bytes())
}

/// Two charts with the blocks of the model from left to right and one series for each kind of
/// layer: above the logarithm of the relative error, where errors of 0 lie on the lower edge, and
/// below the share of the change that was kept.
fn draw(layers: &[MergedLayer]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (plots, legend) = area.split_horizontally(SIZE.0 - LEGEND);
    let (upper, lower) = plots.split_vertically(UPPER);
    let errors = series(layers, |layer| layer.relative_error);
    draw_errors(&upper, &errors)?;
    draw_kept(&lower, &series(layers, |layer| layer.change.kept))?;
    names(&legend, &errors)?;
    area.present()?;
    drop((plots, upper, lower, legend, area));
    Ok(svg)
}

/// The name of a kind of layer, and for each of its layers the number of its block and a value.
type Series<'a> = (&'a str, Vec<(usize, f64)>);

/// The layers by kind, in the order in which the kinds first appear. Layers outside all blocks come
/// after the last block.
fn series(layers: &[MergedLayer], value: impl Fn(&MergedLayer) -> f64) -> Vec<Series<'_>> {
    let after = layers.iter().filter_map(MergedLayer::block).max();
    let after = after.map_or(0, |last| last + 1);
    let mut series: Vec<Series> = Vec::new();
    for layer in layers {
        let point = (layer.block().unwrap_or(after), value(layer));
        match series.iter_mut().find(|(kind, _)| *kind == layer.kind()) {
            Some((_, points)) => points.push(point),
            None => series.push((layer.kind(), vec![point])),
        }
    }
    series
}

/// The last block.
fn last(series: &[Series]) -> usize {
    let blocks = series.iter().flat_map(|(_, points)| points).map(|p| p.0);
    blocks.max().unwrap_or(0)
}

/// Round numbers on the axis, the first at or below all errors above 0 and the last at or above:
/// all multiples of a power of ten if they are near each other, 1, 2 and 5 times powers of ten, or
/// powers of ten alone where these would be too many.
fn ticks(series: &[Series]) -> Vec<f64> {
    let errors = || series.iter().flat_map(|(_, points)| points).map(|p| p.1);
    let low = errors().filter(|e| *e > 0.0).fold(f64::INFINITY, f64::min);
    let high = errors().fold(0.0, f64::max);
    let (low, high) = match low.is_finite() && high.is_finite() {
        true => (low, high),
        false => (1e-8, 1.0),
    };
    let [first, last] = [low, high].map(|error| error.log10().floor() as i32);
    let factors: &[f64] = match last - first {
        0 => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        1..=2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let powers = (first..=last + 1).map(|exponent| 10f64.powi(exponent));
    let steps: Vec<f64> = powers
        .flat_map(|power| factors.iter().map(move |factor| factor * power))
        .collect();
    let from = steps.iter().rposition(|step| *step <= low).unwrap_or(0);
    let to = steps
        .iter()
        .position(|step| *step >= high && *step > steps[from]);
    steps[from..=to.unwrap_or(steps.len() - 1)].to_vec()
}

fn draw_errors<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    series: &[Series],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let last = last(series);
    let ticks = ticks(series);
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let mut chart = chart(area).build_cartesian_2d(
        -0.5..last as f64 + 0.5,
        (low..high).log_scale().with_key_points(ticks),
    )?;
    let label = |error: &f64| format!("{error:.0e}");
    mesh(
        &mut chart,
        last,
        TICKS,
        "relative error of the weight",
        &label,
    )?;
    points(&mut chart, series, low..high)
}

fn draw_kept<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    series: &[Series],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let last = last(series);
    let shares = || series.iter().flat_map(|(_, points)| points).map(|p| p.1);
    // Seldom outside of 0 to 1, and far outside only where next to nothing was to change.
    let low = shares().fold(0.0, f64::min).max(-1.0);
    let high = shares().fold(1.0, f64::max).min(2.0);
    let mut chart = chart(area).build_cartesian_2d(-0.5..last as f64 + 0.5, low..high)?;
    let label = |share: &f64| format!("{:.0} %", 100.0 * share);
    mesh(&mut chart, last, SHARES, "change that was kept", &label)?;
    points(&mut chart, series, low..high)
}

fn chart<'a, 'b, B: DrawingBackend>(area: &'a DrawingArea<B, Shift>) -> ChartBuilder<'a, 'b, B> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(16).x_label_area_size(44).y_label_area_size(72);
    chart
}

/// A chart of blocks and values.
type Chart<'a, B, Y> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, Y>>;

fn mesh<B: DrawingBackend, Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    chart: &mut Chart<'_, B, Y>,
    last: usize,
    labels: usize,
    name: &str,
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels((last + 1).min(16))
        .y_labels(labels)
        .x_desc("block")
        .y_desc(name)
        .x_label_formatter(&|block| format!("{block:.0}"))
        .y_label_formatter(&label)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 16))
        .draw()?;
    Ok(())
}

fn points<B: DrawingBackend, Y: Ranged<ValueType = f64>>(
    chart: &mut Chart<'_, B, Y>,
    series: &[Series],
    range: Range<f64>,
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    for (index, (_, points)) in series.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let points = points.iter();
        let points = points.map(|&(x, y)| (x as f64, y.clamp(range.start, range.end)));
        let points: Vec<(f64, f64)> = points.collect();
        let line = color.mix(0.4).stroke_width(1);
        chart.draw_series(LineSeries::new(points.clone(), line))?;
        let dots = points.into_iter();
        chart.draw_series(dots.map(|point| Circle::new(point, 3, color.filled())))?;
    }
    Ok(())
}

fn names<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    series: &[Series],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    for (index, (kind, _)) in series.iter().enumerate() {
        let y = 28 + 22 * index as i32;
        let color = COLORS[index % COLORS.len()];
        area.draw(&Circle::new((8, y), 4, color.filled()))?;
        let font = ("sans-serif", 14).into_font();
        area.draw(&Text::new((*kind).to_owned(), (20, y - 7), font))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Change;

    fn layer(name: &str, relative_error: f64) -> MergedLayer {
        MergedLayer {
            name: name.into(),
            backend: "dense",
            orthogonality_error: 0.0,
            relative_error,
            change: Change {
                norm: 1.0,
                relative: 0.1,
                kept: 1.0 - relative_error,
                outputs: None,
            },
            searched: true,
        }
    }

    #[test]
    fn each_kind_of_layer_is_a_named_series() {
        let mut layers = vec![layer("lm_head", 0.3)];
        for block in 0..12 {
            let error = 1e-3 * f64::from(block + 1);
            layers.push(layer(&format!("model.layers.{block}.mlp.up_proj"), error));
            let name = format!("model.layers.{block}.self_attn.q_proj");
            layers.push(layer(&name, 2.0 * error));
        }
        let svg = draw(&layers).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<circle").count(), 2 * 25 + 3);
        let texts: Vec<&str> = svg.lines().map(str::trim).collect();
        let wanted = ["block", "up_proj", "lm_head", "1e-3", "5e-1", "100 %"];
        for text in wanted {
            assert!(texts.contains(&text), "{text}");
        }
    }

    #[test]
    fn zeros_and_empty_lists_can_be_drawn() {
        let wild = vec![layer("a.0.b", 1e9), layer("a.1.b", 0.0)];
        for layers in [vec![], vec![layer("a.0.b", 0.0), layer("a.1.b", 0.0)], wild] {
            let svg = draw(&layers).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
