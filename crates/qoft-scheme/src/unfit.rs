//! What is wrong with a value of JSON, in words that are not Rust's.

/// What serde says of a value of another type, or of a name that there is not, in words that are not Rust's;
/// `None` where it says something else. Where the value stands is not among the words.
#[must_use]
pub fn unfit(error: &serde_json::Error) -> Option<String> {
    let said = error.to_string();
    let said = match said.rsplit_once(" at line ") {
        Some((said, _)) if error.line() > 0 => said,
        _ => &said,
    };
    if let Some(rest) = said.strip_prefix("unknown variant ") {
        let known = rest.rsplit_once("`, expected ")?.1;
        let known = known.strip_prefix("one of ").unwrap_or(known);
        return Some(format!("it may be {}", known.replace('`', "")));
    }
    let rest = said.strip_prefix("invalid type: ");
    let rest = rest.or_else(|| said.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string or map" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        named if named.starts_with("struct ") => "an object",
        words if words.starts_with("a ") || words.starts_with("an ") => words,
        _ => return None,
    };
    let found = match found {
        "sequence" => "a list",
        "map" => "an object",
        "null" | "unit value" => "null",
        text if text.starts_with("string ") => &text["string ".len()..],
        number => number.split('`').nth(1).unwrap_or(number),
    };
    Some(format!("expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        One,
        Two,
        Three,
    }

    fn says<T: DeserializeOwned>(json: &str) -> Option<String> {
        let read = serde_json::from_str::<T>(json);
        unfit(&read.err().expect("another type"))
    }

    #[test]
    fn types_have_plain_names_and_values_are_repeated() {
        let numbers = says::<BTreeMap<String, f64>>(r#"{"a": "x, expected y"}"#);
        assert_eq!(
            numbers.unwrap(),
            r#"expected a number, found "x, expected y""#
        );
        let whole = "expected a whole number of 0 or more, found";
        assert_eq!(says::<usize>("-1").unwrap(), format!("{whole} -1"));
        assert_eq!(says::<u8>("1.5").unwrap(), format!("{whole} 1.5"));
        let list = says::<Vec<bool>>(r#"[true, null]"#);
        assert_eq!(list.unwrap(), "expected true or false, found null");
        let list = says::<Vec<bool>>(r#"{"a": 1}"#);
        assert_eq!(list.unwrap(), "expected a list, found an object");
        assert_eq!(says::<Vec<u8>>("[1"), None);
    }

    #[test]
    fn names_that_there_are_not_tell_those_that_there_are() {
        let named = says::<Name>(r#""four""#);
        assert_eq!(named.unwrap(), "it may be one, two, three");
    }
}
