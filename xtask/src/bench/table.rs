//! Markdown tables and the numbers in them.

/// A table with a line above it.
#[derive(Debug)]
pub struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, header: &[&str]) -> Self {
        Self {
            title: title.into(),
            header: header.iter().map(|&name| name.into()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as the header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.header.len(), "{cells:?}");
        self.rows.push(cells);
    }

    /// The table in Markdown. Columns in which no row has anything are left out.
    pub fn markdown(&self) -> String {
        let used: Vec<usize> = (0..self.header.len())
            .filter(|&column| self.rows.iter().any(|row| row[column] != NOTHING))
            .collect();
        let line = |cells: &[String]| {
            let cells: Vec<&str> = used.iter().map(|&column| &*cells[column]).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = format!("{}\n\n{}", self.title, line(&self.header));
        text += &format!("|{}\n", "---|".repeat(used.len()));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

/// What stands where there is no number.
pub const NOTHING: &str = "–";

/// A number with three digits that count.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        _ if !value.is_finite() => NOTHING.into(),
        0.0 => "0".into(),
        _ if magnitude >= 100.0 => format!("{value:.0}"),
        _ if magnitude >= 10.0 => format!("{value:.1}"),
        _ if magnitude >= 1.0 => format!("{value:.2}"),
        _ => {
            let digits = (2.0 - magnitude.log10().floor()) as usize;
            format!("{value:.digits$}")
        }
    }
}

/// A number that may be missing.
pub fn maybe(value: Option<f64>) -> String {
    value.map_or(NOTHING.into(), number)
}

/// A quotient of two numbers that may be missing.
pub fn ratio(of: Option<f64>, to: Option<f64>) -> String {
    maybe(of.zip(to).map(|(of, to)| of / to))
}

/// Bytes in MiB.
pub fn mebibytes(bytes: f64) -> f64 {
    bytes / (1024.0 * 1024.0)
}

/// The middle value; the mean of the two middle ones of an even number. Nothing of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[lower] + values[upper]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_leaves_empty_columns_out() {
        let mut table = Table::new("Times", &["model", "qoft", "PEFT"]);
        table.row(["a".into(), number(1.0), maybe(None)]);
        table.row(["b".into(), number(0.25), NOTHING.into()]);
        let expected = "Times\n\n| model | qoft |\n|---|---|\n| a | 1.00 |\n| b | 0.250 |\n";
        assert_eq!(table.markdown(), expected);
        table.row(["c".into(), maybe(None), "not on a CPU".into()]);
        assert!(table.markdown().contains("| c | – | not on a CPU |\n"));
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (1234.5, "1234"),
            (99.94, "99.9"),
            (1.0, "1.00"),
            (0.123_45, "0.123"),
            (0.000_123_45, "0.000123"),
            (f64::NAN, NOTHING),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50");
        assert_eq!(ratio(Some(3.0), None), NOTHING);
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
