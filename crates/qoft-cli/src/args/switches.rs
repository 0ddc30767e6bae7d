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

/// The option of which each word behind its value is one more, and the commands that read several data files.
const DATA: &str = "--data";
const READING: [&str; 5] = ["estimate", "eval", "lr-find", "preview", "train"];
/// The endings of data files.
const ENDINGS: [&str; 7] = ["csv", "json", "jsonl", "ndjson", "parquet", "tsv", "txt"];
/// Endings behind those.
const PACKED: [&str; 3] = ["gz", "zst", "zstd"];

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

/// Arguments in which words behind an option that takes a list are one value with commas, and data files behind
/// `--data` have the option before each of them. What may be a model is no such word: another path that exists, or a
/// name on the Hub.
pub(super) fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    // Whether the last argument is a value to which words belong, or the option before it.
    let (mut is_option, mut is_list) = (false, false);
    // The same for data files, one of which has the option before it.
    let (mut is_data, mut is_file) = (false, false);
    let mut reads_data = false;
    for argument in arguments {
        if is_file && is_data_file(&argument) {
            all.extend([DATA.into(), argument]);
            continue;
        }
        reads_data |= all.len() < 3 && READING.iter().any(|name| argument == *name);
        is_file = is_data;
        is_data = reads_data && argument == DATA;
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

/// Whether an argument has the ending of a data file, perhaps with a weight behind it.
fn is_data_file(argument: &OsStr) -> bool {
    let Some(text) = argument.to_str().filter(|text| !text.starts_with('-')) else {
        return false;
    };
    let path = match text.rsplit_once(':') {
        Some((path, weight)) if weight.parse::<f64>().is_ok() => path,
        _ => text,
    };
    let mut endings = path.rsplit('.').map(str::to_ascii_lowercase);
    let last = endings.next().unwrap_or_default();
    let last = match PACKED.contains(&&*last) {
        true => endings.next().unwrap_or_default(),
        false => last,
    };
    ENDINGS.contains(&&*last)
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
    fn data_files_follow_each_other() {
        let all = ["a.jsonl", "b.csv.gz:0.5", "c.txt"];
        let args = train(&[&["--data"], &all[..], &["--seed=1", "org/name"]].concat());
        assert_eq!(args.data, Some(all.map(str::to_owned).to_vec()));
        assert_eq!(args.given.as_deref(), Some(Path::new("org/name")));
        // Nothing that may be a model is data, nor where one file is wanted.
        let args = train(&["--data", "a.jsonl", "models/a.b", "--seed=1"]);
        assert_eq!(args.given.as_deref(), Some(Path::new("models/a.b")));
        let merge = ["qoft", "merge", "--data", "a.jsonl", "b.jsonl"].map(OsString::from);
        assert_eq!(joined(merge.clone().into_iter()), merge);
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
