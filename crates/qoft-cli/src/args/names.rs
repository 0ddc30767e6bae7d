//! Lists in one option.

/// Names separated by commas.
pub(super) fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}
