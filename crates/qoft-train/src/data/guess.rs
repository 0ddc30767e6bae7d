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

/// The field that probably has what is asked, if it is not `prompt`.
pub(super) fn asked(fields: &[String]) -> Option<&'static str> {
    let mut names = ASKED.into_iter().skip(1);
    names.find(|name| fields.iter().any(|field| field == name))
}

/// The columns that are probably meant by the fields beside two answers.
pub(super) fn guess_prompt(fields: &[String]) -> Option<String> {
    let asked = asked(fields)?;
    // Only an instruction has a system's message beside it.
    let name = match fields.iter().any(|field| field == "system") {
        true => "instruction",
        false => "prompt",
    };
    Some(format!("{name}={asked}"))
}

/// Whether the fields are probably those of a question with several answers.
pub(super) fn is_choice(fields: &[String]) -> bool {
    const CHOICES: [&str; 3] = ["choices", "options", "endings"];
    fields.iter().any(|field| CHOICES.contains(&field.as_str()))
}

/// The columns that are probably meant by the fields of a row that has no known form.
pub(super) fn guess(fields: &[String]) -> Option<String> {
    let first = |names: [&'static str; 7]| {
        let mut names = names.into_iter();
        names.find(|name| fields.iter().any(|field| field == name))
    };
    let (asked, answered) = (first(ASKED)?, first(ANSWERED)?);
    Some(format!("prompt={asked},completion={answered}"))
}
