//! Strings that end a text and do not belong to it.

/// Hands text on up to the first of some strings. What may be the beginning of one is held back.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    /// The string that ended the text, and what came with it.
    behind: String,
}

impl StopStrings {
    /// The text ends before these strings, none of which is empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
            behind: String::new(),
        }
    }

    /// The text that is certain now, and whether it is over.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        if let Some(at) = found.min() {
            self.behind = self.held.split_off(at);
            return (std::mem::take(&mut self.held), true);
        }
        let certain = self.held.len() - self.longest_beginning();
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, where nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The string that ended the text, and what came with it.
    pub fn behind(&mut self) -> String {
        std::mem::take(&mut self.behind)
    }

    /// Bytes at the end of what is held that a stop string may begin with.
    fn longest_beginning(&self) -> usize {
        let beginnings = self.stops.iter().map(|stop| {
            let lengths = (1..stop.len()).rev().filter(|&n| stop.is_char_boundary(n));
            lengths
                .filter(|&n| self.held.ends_with(&stop[..n]))
                .max()
                .unwrap_or(0)
        });
        beginnings.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole text, and whether it was ended, however it is cut into pieces.
    fn cut(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            let (text, over) = filter.push(piece);
            out += &text;
            if over {
                return (out, true);
            }
        }
        (out + &filter.finish(), false)
    }

    #[test]
    fn a_text_ends_before_the_first_stop() {
        assert_eq!(cut(&["\n\n"], &["ab\n", "\ncd"]), ("ab".into(), true));
        assert_eq!(cut(&["\n\n"], &["ab\n", "c\n"]), ("ab\nc\n".into(), false));
        assert_eq!(cut(&["END", "D"], &["xE", "N", "Dy"]), ("x".into(), true));
        assert_eq!(cut(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(cut(&["éé"], &["xé", "y"]), ("xéy".into(), false));
        assert_eq!(cut(&[], &["x"]), ("x".into(), false));
    }

    #[test]
    fn only_what_may_be_a_stop_is_held_back() {
        let mut filter = StopStrings::new(vec!["stop".into()]);
        assert_eq!(filter.push("it st"), ("it ".into(), false));
        assert_eq!(filter.push("ays"), ("stay".into(), false));
        assert_eq!(filter.finish(), "s");
    }
}
