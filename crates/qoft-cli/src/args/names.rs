//! Lists in one option.

use qoft::peft::OneOrMany;

/// Names separated by commas, or a list of texts in JSON, as one is written in a file of YAML.
pub(super) fn names(text: &str) -> Vec<String> {
    if let Ok(names) = serde_json::from_str::<Vec<String>>(text) {
        return names;
    }
    let names = text.split(',').map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// `all-linear` in letters of any case, a list of names, or else a regular expression.
pub(super) fn parse_targets(text: &str) -> OneOrMany {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ',' | ' ');
    // In a name of experts a star stands for each of them.
    let plain = text.replace("experts.*.", "experts.");
    if text.eq_ignore_ascii_case("all-linear") || !plain.chars().all(is_name) {
        return OneOrMany::One(text.to_owned());
    }
    OneOrMany::Many(names(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_commas_or_are_json() {
        for text in ["a, b", "a,b,", r#"["a", "b"]"#] {
            assert_eq!(names(text), ["a", "b"], "{text}");
        }
        assert_eq!(names("[a"), ["[a"]);
    }

    #[test]
    fn targets_are_told_apart() {
        let many = |names: &[&str]| OneOrMany::Many(names.iter().map(|&n| n.into()).collect());
        assert_eq!(parse_targets("q_proj, v_proj"), many(&["q_proj", "v_proj"]));
        assert_eq!(parse_targets("mlp.up_proj"), many(&["mlp.up_proj"]));
        let experts = many(&["q_proj", "experts.*.down_proj"]);
        assert_eq!(parse_targets("q_proj,experts.*.down_proj"), experts);
        let expression = ".*experts.*.down_proj";
        assert_eq!(parse_targets(expression), expression.into());
        assert_eq!(
            parse_targets("All-Linear"),
            OneOrMany::One("All-Linear".into())
        );
        assert_eq!(
            parse_targets(".*[qv]_proj"),
            OneOrMany::One(".*[qv]_proj".into())
        );
    }
}
