//! Places of a document that a program fills.

use anyhow::{Context, Result, bail};

use super::Figures;

const BEGIN: &str = "<!-- figure: ";
const NAMED: &str = " -->";
const END: &str = "<!-- / -->";

/// A document with figures in all of its places.
///
/// # Errors
///
/// If there is no figure of a name, or a place has no end.
pub fn fill(text: &str, figures: &Figures) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, place)) = rest.split_once(BEGIN) {
        let (name, place) = place.split_once(NAMED).context("a mark without an end")?;
        let figure = figures.get(name);
        let figure = figure.with_context(|| format!("there is no figure `{name}`"))?;
        let (old, after) = place
            .split_once(END)
            .with_context(|| format!("the place of `{name}` has no end"))?;
        if old.contains(BEGIN) {
            bail!("the place of `{name}` has no end before the next one");
        }
        filled += &format!("{before}{BEGIN}{name}{NAMED}{figure}{END}");
        rest = after;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_nothing_else_changes() {
        let figures = Figures::from([("a", "1 s".to_owned()), ("b", "2".to_owned())]);
        let text = "x <!-- figure: a --><!-- / --> y\n<!-- figure: b -->old<!-- / --> z";
        let filled = fill(text, &figures).unwrap();
        let expected = "x <!-- figure: a -->1 s<!-- / --> y\n<!-- figure: b -->2<!-- / --> z";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, &figures).unwrap(), expected);
    }

    #[test]
    fn a_place_that_cannot_be_filled_is_named() {
        let figures = Figures::from([("a", "1".to_owned())]);
        for (text, reason) in [
            ("<!-- figure: c -->1<!-- / -->", "no figure `c`"),
            ("<!-- figure: a -->1", "`a` has no end"),
            (
                "<!-- figure: a -->1 <!-- figure: a --><!-- / -->",
                "before the next one",
            ),
        ] {
            let error = fill(text, &figures).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
