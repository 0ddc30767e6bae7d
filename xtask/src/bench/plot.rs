//! Charts of lines over a quantity.

use std::error::Error;

use plotters::prelude::*;

const SIZE: (u32, u32) = (640, 400);
const COLOURS: [RGBColor; 2] = [BLUE, RED];

/// A picture.
#[derive(Debug)]
pub struct Chart {
    /// The name of its file.
    pub file: String,
    /// What the axes are.
    pub x: String,
    /// The one that goes up.
    pub y: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// A line.
#[derive(Debug)]
pub struct Series {
    /// Its name.
    pub label: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// The picture as SVG; both axes begin at 0. Nothing without points.
    ///
    /// # Errors
    ///
    /// If plotters cannot draw it.
    pub fn svg(&self) -> Result<Option<String>, Box<dyn Error>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            return Ok(None);
        }
        let right = points().map(|p| p.0).fold(0.0, f64::max) * 1.05;
        let top = points().map(|p| p.1).fold(0.0, f64::max) * 1.05;
        let mut svg = String::new();
        self.draw(&mut svg, right, top.max(f64::MIN_POSITIVE))?;
        Ok(Some(svg))
    }

    fn draw(&self, svg: &mut String, right: f64, top: f64) -> Result<(), Box<dyn Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| super::table::number(*y))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 16))
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            let dots = series.points.iter();
            chart
                .draw_series(LineSeries::new(series.points.iter().copied(), style))?
                .label(&series.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            chart.draw_series(dots.map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 14))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        Chart {
            file: "a.svg".into(),
            x: "layers".into(),
            y: "seconds".into(),
            series: vec![Series {
                label: "plain".into(),
                points: points.into(),
            }],
        }
    }

    #[test]
    fn lines_have_dots_and_names() {
        let svg = chart(&[(1.0, 2.0), (2.0, 3.0)]).svg().unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("<polyline"));
        assert_eq!(svg.matches("<circle").count(), 2);
        for text in ["layers", "seconds", "plain"] {
            assert!(svg.lines().any(|line| line.trim() == text), "{text}");
        }
    }

    #[test]
    fn one_point_is_enough_and_none_is_no_picture() {
        assert!(!chart(&[(1.0, 2.0)]).svg().unwrap().unwrap().contains("NaN"));
        assert!(chart(&[]).svg().unwrap().is_none());
    }
}
