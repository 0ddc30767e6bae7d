//! What to say of options that there are not.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{foreign, synonyms};

/// Characters of an option that may be wrong in one that is meant: one in so many, but one at least.
const TYPO: usize = 4;

/// Leaves out what only looks alike, or says why there is no such option.
pub fn with_suggestion(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(reason) = not_built_in(given)
    {
        error.remove(ContextKind::SuggestedSubcommand);
        let tips = vec![reason.into()];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        return error;
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let given = bare(given);
    let reason = foreign::reason(&given).or_else(|| elsewhere(&given));
    let alike = match error.remove(ContextKind::SuggestedArg) {
        Some(ContextValue::String(alike)) if reason.is_none() && is_typo(&given, &bare(&alike)) => {
            Some(alike)
        }
        _ => None,
    };
    if let Some(alike) = alike {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(alike));
    } else if let Some(reason) = reason {
        let tips = vec![reason.into()];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// What to say of a command that only other builds have.
fn not_built_in(command: &str) -> Option<&'static str> {
    (command == "serve" && !cfg!(feature = "serve"))
        .then_some("this build of qoft lacks the server; build it with the Cargo feature `serve`")
}

/// What to say of an option of `qoft train` in another command.
fn elsewhere(name: &str) -> Option<&'static str> {
    (name == "stage").then_some(
        "preferences are measured where they are learned: `qoft train --stage dpo --eval-data FILE`; this \
         command has the loss of texts",
    )
}

/// The name of an option without hyphens before it, a value behind it, and underscores.
fn bare(option: &str) -> String {
    let name = option.trim_start_matches('-');
    let name = name.split(['=', ' ']).next().unwrap_or_default();
    name.replace('_', "-")
}

/// Whether an option may be another one with a slip of the finger in it.
fn is_typo(given: &str, meant: &str) -> bool {
    strsim::osa_distance(given, meant) <= (meant.len() / TYPO).max(1)
}

/// The name that is meant by one with a slip of the finger in it.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.filter(|known| is_typo(given, known));
    alike.min_by_key(|known| strsim::osa_distance(given, known))
}

/// What to say of a key of a file that is no option of the training.
pub(super) fn key(key: &str, known: &[String]) -> String {
    let given = key.replace('_', "-");
    match nearest(key, known.iter().map(String::as_str)) {
        Some(nearest) => format!("`{nearest}` is meant"),
        None => match synonyms::own(&given) {
            Some(own) => format!("`--{own}` is for other commands"),
            None => "`qoft train --help` lists all".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::program;

    fn parse(args: &[&str]) -> Result<clap::ArgMatches, String> {
        let all = [&["qoft"], args].concat();
        let parsed = program().try_get_matches_from(all);
        parsed.map_err(|error| with_suggestion(error).to_string())
    }

    #[test]
    fn slips_of_the_finger_are_told_from_what_only_looks_alike() {
        for typo in ["--learnin-rate=1", "--laerning-rate=1", "--learningrate=1"] {
            let says = parse(&["train", typo]).unwrap_err();
            assert!(says.contains("'--learning-rate'"), "{says}");
        }
        for (command, given) in [
            ("train", "--label-names=5"),
            ("train", "--use-liger"),
            // Options that only another command has.
            ("inspect", "--lr=1"),
        ] {
            let says = parse(&[command, given]).unwrap_err();
            assert!(!says.contains("a similar argument"), "{says}");
        }
        let says = parse(&["eval", "--stage=dpo"]).unwrap_err();
        assert!(says.contains("qoft train --stage dpo"), "{says}");
        let says = parse(&["generate", "--num-beams=4"]).unwrap_err();
        assert!(says.contains("without beams"), "{says}");
        let says = parse(&["eval", "--deepspeed=a.json"]).unwrap_err();
        assert!(says.contains("mpirun"), "{says}");
    }

    #[test]
    fn keys_of_files_have_suggestions() {
        let known = ["learning_rate".to_owned(), "seed".to_owned()];
        assert!(key("learning_rat", &known).contains("`learning_rate`"));
        assert!(key("temp", &known).contains("other commands"));
        assert!(key("completely_else", &known).contains("--help"));
    }
}
