//! Marks around the text that a template names the assistant's.

use std::collections::HashSet;

use crate::Rendered;

/// Noncharacters: Unicode keeps them for uses inside a program, so text hardly contains them.
const NONCHARACTERS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Two characters that `text` does not contain.
pub(crate) fn unused_marks(text: &str) -> [char; 2] {
    let mut unused = unused(text);
    let mut next = || unused.next().unwrap_or(char::REPLACEMENT_CHARACTER);
    [next(), next()]
}

/// As many different characters as there are that `text` does not contain.
pub(crate) fn probes(text: &str) -> impl Iterator<Item = char> {
    let used: HashSet<char> = text.chars().collect();
    let private = ('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}');
    private.filter(move |c| !used.contains(c))
}

fn unused(text: &str) -> impl Iterator<Item = char> {
    let private = '\u{F0000}'..='\u{FFFFD}';
    NONCHARACTERS.chain(private).filter(|&c| !text.contains(c))
}

/// Takes the marks out of a rendered text; what stood between them is learned.
pub(crate) fn take_marks(marked: &str, [open, close]: [char; 2]) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let mut learned = Vec::new();
    let mut start = 0;
    for c in marked.chars() {
        if c == open {
            start = text.len();
        } else if c == close {
            learned.push(start..text.len());
        } else {
            text.push(c);
        }
    }
    Rendered { text, learned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_byte_ranges() {
        let marks = unused_marks("éabc\u{FDD0}");
        assert_eq!(marks, ['\u{FDD1}', '\u{FDD2}']);
        let rendered = take_marks("é\u{FDD1}ab\u{FDD2}c\u{FDD0}\u{FDD1}\u{FDD2}", marks);
        assert_eq!(rendered.text, "éabc\u{FDD0}");
        assert_eq!(rendered.learned, [2..4, 8..8]);
    }
}
