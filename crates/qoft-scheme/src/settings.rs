//! Settings in one text: `bits=4,skips=[a,b]`.

use serde_json::Value;

/// The parts of a text between its commas, but not those in brackets, braces or quotes.
pub fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, letter) in text.char_indices() {
        if quoted {
            quoted = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => quoted = true,
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A value: JSON, a list of values in brackets, or plain text.
pub fn read_value(text: &str) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(inside) => parts(inside)
            .into_iter()
            .map(|part| read_value(part.trim()))
            .collect(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commas_in_brackets_and_quotes_are_no_ends() {
        assert_eq!(parts("a=[b,c],d=1"), ["a=[b,c]", "d=1"]);
        assert_eq!(parts(r#"a={"b": [1, 2]},c="x,\",y",d"#).len(), 3);
        assert_eq!(parts("a(?:x|y{1,2}),b"), ["a(?:x|y{1,2})", "b"]);
        assert_eq!(parts("],a"), ["]", "a"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn lists_need_no_quotes() {
        assert_eq!(
            read_value("[lm_head, q_proj]"),
            json!(["lm_head", "q_proj"])
        );
        assert_eq!(read_value(r#"["a,b", 2]"#), json!(["a,b", 2]));
        assert_eq!(read_value("[a, 2, [b]]"), json!(["a", 2, ["b"]]));
        assert_eq!(read_value("[]"), json!([]));
        assert_eq!(read_value("nf4"), json!("nf4"));
        assert_eq!(read_value("true"), json!(true));
    }
}
