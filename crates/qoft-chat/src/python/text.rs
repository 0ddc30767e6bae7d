//! What Python's strings do to their letters: cases, white space, replacing.

use std::collections::HashSet;

use minijinja::Error;

use super::unicode::{
    is_alpha, is_decimal, is_digit, is_line_break, is_numeric, is_printable, is_space,
};
use crate::budget::charge;

/// `text.upper()` and the like.
pub(crate) fn in_case(text: &str, name: &str) -> String {
    match name {
        "lower" => text.to_lowercase(),
        "casefold" => casefold(text),
        "upper" => text.to_uppercase(),
        "swapcase" => swap_case(text),
        "title" => title(text),
        _ => capitalize(text),
    }
}

/// `strip`, `lstrip` or `rstrip` of `characters`, or of white space.
pub(crate) fn strip<'t>(text: &'t str, name: &str, characters: Option<&str>) -> &'t str {
    let characters: Option<HashSet<char>> = characters.map(|text| text.chars().collect());
    let is_stripped = |c: char| match &characters {
        Some(characters) => characters.contains(&c),
        None => is_space(c),
    };
    match name {
        "lstrip" => text.trim_start_matches(is_stripped),
        "rstrip" => text.trim_end_matches(is_stripped),
        _ => text.trim_matches(is_stripped),
    }
}

fn casefold(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let folded = if c == 'ß' || c == 'ẞ' {
                "ss".to_owned()
            } else {
                c.to_lowercase().collect()
            };
            folded.chars().collect::<Vec<_>>()
        })
        .collect()
}

pub(crate) fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => title_case(first) + &characters.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// The character at the start of a word. Characters for two letters become one large and one small.
fn title_case(c: char) -> String {
    let upper = c.to_uppercase();
    match c {
        'ǆ' | 'Ǆ' | 'ǅ' => "ǅ".to_owned(),
        'ǉ' | 'Ǉ' | 'ǈ' => "ǈ".to_owned(),
        'ǌ' | 'Ǌ' | 'ǋ' => "ǋ".to_owned(),
        'ǳ' | 'Ǳ' | 'ǲ' => "ǲ".to_owned(),
        _ if upper.len() > 1 => {
            let mut title = String::new();
            for c in upper {
                if title.chars().any(is_cased) {
                    title.extend(c.to_lowercase());
                } else {
                    title.push(c);
                }
            }
            title
        }
        _ => upper.collect(),
    }
}

fn is_cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase()
}

fn swap_case(text: &str) -> String {
    let mut swapped = String::new();
    for c in text.chars() {
        if c.is_uppercase() {
            swapped.extend(c.to_lowercase());
        } else {
            swapped.extend(c.to_uppercase());
        }
    }
    swapped
}

pub(crate) fn title(text: &str) -> String {
    let mut titled = String::new();
    let mut behind_letter = false;
    for c in text.chars() {
        if behind_letter {
            titled.extend(c.to_lowercase());
        } else {
            titled.push_str(&title_case(c));
        }
        behind_letter = is_cased(c);
    }
    titled
}

/// The methods that ask for a property of the text.
pub(crate) fn has_property(text: &str, name: &str) -> bool {
    let all = |test: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    match name {
        "isalnum" => all(&|c| is_alpha(c) || is_numeric(c)),
        "isalpha" => all(&is_alpha),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(&is_decimal),
        "isdigit" => all(&is_digit),
        "isnumeric" => all(&is_numeric),
        "isprintable" => text.chars().all(is_printable),
        "isspace" => all(&is_space),
        "isidentifier" => {
            let starts = text.starts_with(|c: char| c == '_' || is_alpha(c));
            starts
                && text
                    .chars()
                    .all(|c| c == '_' || is_alpha(c) || is_numeric(c))
        }
        "islower" => text.chars().any(is_cased) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(is_cased) && !text.chars().any(char::is_lowercase),
        _ => is_title(text),
    }
}

fn is_title(text: &str) -> bool {
    let mut behind_letter = false;
    let mut has_letter = false;
    for c in text.chars() {
        // Four characters are a large and a small letter in one.
        let is_both = matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ');
        let fits = match (is_both || c.is_uppercase(), c.is_lowercase()) {
            (true, _) => !behind_letter,
            (_, true) => behind_letter,
            _ => true,
        };
        if !fits {
            return false;
        }
        behind_letter = is_both || is_cased(c);
        has_letter |= behind_letter;
    }
    has_letter
}

pub(crate) fn split_at<'t>(
    text: &'t str,
    separator: &str,
    count: usize,
    is_right: bool,
) -> Vec<&'t str> {
    let parts = count.saturating_add(1);
    if is_right {
        let mut parts: Vec<&str> = text.rsplitn(parts, separator).collect();
        parts.reverse();
        parts
    } else {
        text.splitn(parts, separator).collect()
    }
}

pub(crate) fn split_at_space(text: &str, count: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == count {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

pub(crate) fn split_right_at_space(text: &str, count: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == count {
            parts.push(rest);
            break;
        }
        let word = rest.trim_end_matches(|c| !is_space(c));
        parts.push(&rest[word.len()..]);
        rest = word.trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// The lines of `text` as `str.splitlines` gives them.
pub(crate) fn lines(text: &str, keeps_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_line_break).unwrap_or(rest.len());
        let behind = &rest[end..];
        let break_length = if behind.starts_with("\r\n") {
            2
        } else {
            behind.chars().next().map_or(0, char::len_utf8)
        };
        let kept = if keeps_ends { end + break_length } else { end };
        lines.push(&rest[..kept]);
        rest = &behind[break_length..];
    }
    lines
}

/// `text.replace(old, new, count)`, where a negative count means all.
pub(crate) fn replace(text: &str, old: &str, new: &str, count: i128) -> Result<String, Error> {
    charge(text.len())?;
    let limit = if count < 0 {
        usize::MAX
    } else {
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    let found = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    };
    charge(found.min(limit).saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, limit))
}

/// `text` in the middle of `width` characters.
pub(crate) fn centered(text: &str, width: usize, fill: char) -> Result<String, Error> {
    charge(
        text.len()
            .saturating_add(width.saturating_mul(fill.len_utf8())),
    )?;
    let missing = width.saturating_sub(text.chars().count());
    let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    // As in CPython, an odd space goes left where the width is odd.
    let left = missing / 2 + (missing & width & 1);
    Ok(format!("{}{text}{}", fill(left), fill(missing - left)))
}
