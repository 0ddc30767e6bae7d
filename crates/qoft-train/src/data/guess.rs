//! What the fields of a row that has no known form probably are.

/// Names that data sets have for what is asked and for what is answered.
const ASKED: [&str; 7] = [
    "prompt",
    "question",
    "query",
    "instruction",
    "problem",
    "input",
    "source",
];
const ANSWERED: [&str; 7] = [
    "completion",
    "answer",
    "response",
    "output",
    "solution",
    "target",
    "reply",
];

/// The columns that are probably meant by the fields of a row that has no known form.
pub(super) fn guess(fields: &[String]) -> Option<String> {
    let first = |names: [&'static str; 7]| {
        let mut names = names.into_iter();
        names.find(|name| fields.iter().any(|field| field == name))
    };
    let (asked, answered) = (first(ASKED)?, first(ANSWERED)?);
    Some(format!("prompt={asked},completion={answered}"))
}
