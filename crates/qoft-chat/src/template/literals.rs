//! Literals that Jinja reads otherwise than `minijinja`.

/// What is special about a literal that Jinja would read otherwise, or not at all.
pub(super) fn differs(literal: &str) -> Option<&'static str> {
    if literal.starts_with(|c: char| c.is_ascii_digit()) {
        return differs_as_number(literal).then_some("this way to write a number");
    }
    let mut characters = literal.chars();
    while let Some(c) = characters.next() {
        if c == '\\' && matches!(characters.next(), Some('U' | 'N' | '\n')) {
            return Some("this escape in a text");
        }
    }
    None
}

fn differs_as_number(literal: &str) -> bool {
    let is_decimal = !literal.starts_with('0') || literal.len() == 1 || literal.starts_with("0.");
    let prefixes = ["0x", "0X", "0o", "0O", "0b", "0B"];
    let is_prefixed = prefixes.iter().any(|prefix| literal.starts_with(prefix));
    literal.contains("__")
        || literal.ends_with(['.', '_'])
        || [".e", ".E", "._", "_."]
            .iter()
            .any(|part| literal.contains(part))
        || !(is_decimal || is_prefixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_otherwise_is_found() {
        let alike = [
            "0",
            "10",
            "1_000",
            "1.5",
            "0.5",
            "1e5",
            "2.5e-7",
            "0x1F",
            "'a\\n\\\\U'",
            "'1__0'",
        ];
        for literal in alike {
            assert_eq!(differs(literal), None, "{literal}");
        }
        for literal in ["01", "1__0", "1.", "1.e5", "'\\U0001f600'", "'a\\\nb'"] {
            assert!(differs(literal).is_some(), "{literal}");
        }
    }
}
