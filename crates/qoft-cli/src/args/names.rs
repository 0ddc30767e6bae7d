//! Lists in one option.

use qoft::peft::OneOrMany;

/// Names separated by commas.
pub(super) fn names(text: &str) -> Vec<String> {
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
