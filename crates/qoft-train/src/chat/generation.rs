//! The `{% generation %}` tags of transformers, which enclose the assistant's text.
//!
//! `minijinja` cannot be taught new tags, so the tags become a filter block. The filter puts a
//! mark before and behind its text, and the marks are taken out of the rendered conversation.

use std::borrow::Cow;

use super::{ChatError, Message, Rendered};

/// The name of the filter that stands for the tags.
pub(super) const FILTER: &str = "__generation";

// Noncharacters: Unicode keeps them for uses inside a program, so text does not contain them.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// The filter: puts the marks around the assistant's text.
pub(super) fn mark(text: Cow<'_, str>) -> String {
    format!("{OPEN}{text}{CLOSE}")
}

/// Rewrites the tags of a template into filter blocks; the second value says whether it had any.
///
/// A tag keeps its `-` and `+` and stays a block tag, so that Jinja's rules on the white space
/// around blocks hold for it unchanged.
pub(super) fn replace_tags(source: &str) -> (String, bool) {
    let mut replaced = String::with_capacity(source.len());
    let mut found = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        replaced.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + "%}".len());
        let (tag, behind) = tag.split_at(end);
        match replace_tag(tag) {
            Some(tag) => {
                replaced.push_str(&tag);
                found = true;
            }
            None => replaced.push_str(tag),
        }
        rest = behind;
    }
    replaced.push_str(rest);
    (replaced, found)
}

/// The filter tag for one `{% generation %}` or `{% endgeneration %}`; `None` for other tags.
fn replace_tag(tag: &str) -> Option<String> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let is_sign = |c: char| c == '-' || c == '+';
    let statement = match inner.trim_matches(|c: char| is_sign(c) || c.is_whitespace()) {
        "generation" => format!("filter {FILTER}"),
        "endgeneration" => "endfilter".to_owned(),
        _ => return None,
    };
    let sign = |c: Option<char>| {
        c.filter(|&c| is_sign(c))
            .map(String::from)
            .unwrap_or_default()
    };
    let left = sign(inner.chars().next());
    let right = sign(inner.chars().next_back());
    Some(format!("{{%{left} {statement} {right}%}}"))
}

/// Refuses messages that contain a mark.
pub(super) fn check_free_of_marks(messages: &[Message]) -> Result<(), ChatError> {
    let holds_mark = |text: &str| text.chars().find(|&c| c == OPEN || c == CLOSE);
    match messages
        .iter()
        .flat_map(Message::values)
        .find_map(|value| find_in(value, &holds_mark))
    {
        Some(mark) => Err(ChatError::ReservedCharacter(mark.into())),
        None => Ok(()),
    }
}

/// The first character that `search` finds in a string of `value`.
fn find_in(value: &serde_json::Value, search: &dyn Fn(&str) -> Option<char>) -> Option<char> {
    match value {
        serde_json::Value::String(text) => search(text),
        serde_json::Value::Array(items) => items.iter().find_map(|item| find_in(item, search)),
        serde_json::Value::Object(items) => items.values().find_map(|item| find_in(item, search)),
        _ => None,
    }
}

/// Takes the marks out of a rendered text; what stood between them is learned.
pub(super) fn take_marks(marked: &str) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let mut learned = Vec::new();
    let mut start = 0;
    for c in marked.chars() {
        match c {
            OPEN => start = text.len(),
            CLOSE => learned.push(start..text.len()),
            _ => text.push(c),
        }
    }
    Rendered { text, learned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_their_signs_and_other_tags_stay() {
        let (replaced, found) = replace_tags(
            "{%- generation -%}{% if a %}x{%endif%}{%endgeneration%}{{ '%}' }}{%+ generation +%}",
        );
        assert!(found);
        assert_eq!(
            replaced,
            "{%- filter __generation -%}{% if a %}x{%endif%}{% endfilter %}{{ '%}' }}\
             {%+ filter __generation +%}"
        );
    }

    #[test]
    fn a_template_without_tags_stays_as_it_is() {
        for source in [
            "",
            "{% set generation = 1 %}",
            "{% generation",
            "{%%}",
            "{%-%}",
        ] {
            assert_eq!(replace_tags(source), (source.to_owned(), false));
        }
    }

    #[test]
    fn marks_become_byte_ranges() {
        let rendered = take_marks("é\u{FDD0}ab\u{FDD1}c\u{FDD0}\u{FDD1}");
        assert_eq!(rendered.text, "éabc");
        assert_eq!(rendered.learned, [2..4, 5..5]);
    }
}
