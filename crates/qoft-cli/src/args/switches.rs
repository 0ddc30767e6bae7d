//! Arguments as programs in Python take them: `True` for true, the last of several, and lists of words.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::builder::{BoolValueParser, PossibleValue, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, Command, Error};

/// Options whose value may be several words in the place of one with commas, as argparse's `nargs="+"`.
const WORDS: [&str; 3] = [
    "--modules-to-save",
    "--target-modules",
    "--target-parameters",
];

/// The command with switches that may be `True`, and options of which the last one counts.
pub(super) fn accepting(command: Command) -> Command {
    let command = command.args_override_self(true);
    let command = command.mut_args(|arg| match is_switch(&arg) {
        true => arg.value_parser(Switch),
        false => arg,
    });
    command.mut_subcommands(accepting)
}

/// Whether a value says if something is wanted.
fn is_switch(arg: &Arg) -> bool {
    let is_set = matches!(arg.get_action(), ArgAction::Set);
    is_set && arg.get_value_parser().type_id() == ValueParser::bool().type_id()
}

/// Reads `true` and `false` in letters of any case.
#[derive(Clone)]
struct Switch;

impl TypedValueParser for Switch {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<bool, Error> {
        BoolValueParser::new().parse_ref(command, arg, &value.to_ascii_lowercase())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(
            ["true", "false"].into_iter().map(PossibleValue::new),
        ))
    }
}

/// Arguments in which words behind an option that takes a list are one value with commas. What may be a model is no
/// such word: a path that exists, or a name on the Hub.
pub(super) fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    // Whether the last argument is a value to which words belong, or the option before it.
    let (mut is_option, mut is_list) = (false, false);
    for argument in arguments {
        match all.last_mut() {
            Some(list) if is_list && is_word(&argument) => {
                list.push(",");
                list.push(argument);
                continue;
            }
            _ => {}
        }
        is_list = is_option;
        is_option = argument.to_str().is_some_and(|text| WORDS.contains(&text));
        all.push(argument);
    }
    all
}

fn is_word(argument: &OsStr) -> bool {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let name = argument
        .to_str()
        .filter(|text| text.chars().all(is_of_names));
    name.is_some_and(|name| !name.is_empty() && !Path::new(name).exists())
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::args::{Cli, TrainArgs, program};

    fn train(args: &[&str]) -> TrainArgs {
        let all = [&["qoft", "train"], args].concat();
        let all = joined(all.into_iter().map(OsString::from));
        let mut matches = program().try_get_matches_from(all).expect("arguments");
        let mut cli = Cli::from_arg_matches_mut(&mut matches).expect("options");
        std::mem::take(cli.command.training().expect("a training"))
    }

    #[test]
    fn switches_are_as_in_python() {
        let args = train(&["--packing", "True", "--coft=False", "--load-in-4bit"]);
        assert_eq!(args.packing, Some(true));
        assert_eq!(args.coft, Some(false));
        assert_eq!(args.load.load_in_4bit, Some(true));
        let wrong = program().try_get_matches_from(["qoft", "train", "--packing=maybe"]);
        let says = wrong.unwrap_err().to_string();
        assert!(says.contains("possible values: true, false"), "{says}");
    }

    #[test]
    fn the_last_one_counts_and_lists_stay_lists() {
        let args = train(&["--seed=1", "--lr=2", "--learning-rate=3", "--seed=4"]);
        assert_eq!(args.training.seed, Some(4));
        assert_eq!(args.training.learning_rate, Some(3.0));
        let args = train(&["--data=a", "--data=b"]);
        assert_eq!(args.data, Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn words_of_a_list_are_one_value() {
        let args = train(&["--target-modules", "q_proj", "v_proj", "--seed=1"]);
        assert_eq!(args.target_modules.as_deref(), Some("q_proj,v_proj"));
        let args = train(&["--target-modules", "q_proj", "org/name"]);
        assert_eq!(args.target_modules.as_deref(), Some("q_proj"));
        assert_eq!(args.given.as_deref(), Some(Path::new("org/name")));
        let args = train(&["--target-modules", "all-linear", "src"]);
        assert_eq!(args.given.as_deref(), Some(Path::new("src")));
    }
}
