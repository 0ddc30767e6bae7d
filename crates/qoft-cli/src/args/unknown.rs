//! Names that other programs have for options of this one.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Names in PEFT's scripts, in transformers, axolotl, unsloth and LLaMA-Factory, and what is meant.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("adapter-name-or-path", "--adapter"),
    ("base-model", "--model"),
    ("bf16", "--activation-dtype bf16"),
    ("block-size", "--oft-block-size"),
    ("cutoff-len", "--max-length"),
    ("dataset", "--data"),
    ("dataset-path", "--data"),
    ("dropout", "--module-dropout"),
    ("epochs", "--num-epochs"),
    ("eval-dataset", "--eval-data"),
    ("eval-batch-size", "--batch-size"),
    ("eval-strategy", "--eval-steps"),
    ("evaluation-strategy", "--eval-steps"),
    ("grad-accum", "--gradient-accumulation-steps"),
    ("gradient-accumulation", "--gradient-accumulation-steps"),
    ("lora-dropout", "--module-dropout"),
    ("lora-r", "--oft-r"),
    ("lora-rank", "--oft-r"),
    ("lora-target", "--target-modules"),
    ("lr", "--learning-rate"),
    ("lr-scheduler-type", "--lr-scheduler"),
    ("max-seq-len", "--max-length"),
    ("max-seq-length", "--max-length"),
    ("max-tokens", "--max-new-tokens"),
    ("micro-batch-size", "--batch-size"),
    ("model-name", "--model"),
    ("model-name-or-path", "--model"),
    ("model-path", "--model"),
    ("n-epochs", "--num-epochs"),
    ("num-train-epochs", "--num-epochs"),
    ("oft-target", "--target-modules"),
    ("optim", "--optimizer"),
    ("out", "--output"),
    ("output-dir", "--output"),
    ("output-path", "--output"),
    ("per-device-eval-batch-size", "--batch-size"),
    ("per-device-train-batch-size", "--batch-size"),
    ("resume", "--resume-from"),
    ("resume-from-checkpoint", "--resume-from"),
    ("rank", "--oft-r"),
    ("sequence-len", "--max-length"),
    ("steps", "--max-steps"),
    ("temp", "--temperature"),
    ("train-data", "--data"),
    ("train-file", "--data"),
    ("validation-file", "--eval-data"),
    ("warmup", "--warmup-steps"),
];

/// Puts what was probably meant in the place of what only looks alike.
pub fn with_suggestion(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if let Some(meant) = meant(given) {
        error.insert(
            ContextKind::SuggestedArg,
            ContextValue::String(meant.to_owned()),
        );
    }
    error
}

/// The option that is meant by a name of another program.
pub(super) fn meant(given: &str) -> Option<&'static str> {
    let name = given.trim_start_matches('-').replace('_', "-");
    let found = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    found.map(|(_, meant)| *meant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, Parser};

    fn says(args: &[&str]) -> String {
        let error = Cli::try_parse_from([&["qoft"], args].concat()).unwrap_err();
        with_suggestion(error).to_string()
    }

    #[test]
    fn names_of_other_programs_are_translated() {
        for (given, meant) in [
            ("--lr=1", "'--learning-rate'"),
            ("--cutoff-len=1", "'--max-length'"),
            ("--cutoff_len=1", "'--max-length'"),
            ("--bf16", "'--activation-dtype bf16'"),
        ] {
            let says = says(&["train", given]);
            assert!(says.contains(meant), "{says}");
        }
        let says = says(&["train", "--learnin-rate=1"]);
        assert!(says.contains("'--learning-rate'"), "{says}");
    }

    #[test]
    fn what_is_suggested_exists() {
        let program = Cli::command();
        let has = |command: &clap::Command, option: &str| {
            let mut options = command.get_arguments();
            options.any(|arg| arg.get_long() == Some(option))
        };
        for (other, meant) in OTHER_NAMES {
            let option = meant.trim_start_matches('-').split(' ').next();
            let option = option.expect("a name");
            let commands: Vec<_> = program.get_subcommands().collect();
            assert!(commands.iter().any(|c| has(c, option)), "{meant}");
            // Another command may have an option of this name.
            let both = commands.iter().find(|c| has(c, option) && has(c, other));
            assert!(both.is_none(), "{other} is an option beside {meant}");
        }
    }
}
