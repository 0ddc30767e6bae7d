//! Names that other programs have for options of this one.

use clap::Command;

/// Names in PEFT's scripts, in transformers, axolotl, unsloth, mlx-lm and LLaMA-Factory, and the
/// option here.
/// What the value means is the same.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    ("base-model", "model"),
    ("block-size", "oft-block-size"),
    ("cpo-alpha", "rpo-alpha"),
    ("cutoff-len", "max-length"),
    ("dataset", "data"),
    ("dataset-name", "data"),
    ("dataset-path", "data"),
    ("double-quantization", "bnb-4bit-use-double-quant"),
    ("dpo-beta", "beta"),
    ("dpo-label-smoothing", "label-smoothing"),
    ("early-stopping-steps", "early-stopping-patience"),
    ("epochs", "num-epochs"),
    ("eval-dataset", "eval-data"),
    ("eval-file", "eval-data"),
    ("evaluation-strategy", "eval-strategy"),
    ("grad-accum", "gradient-accumulation-steps"),
    ("gradient-accumulation", "gradient-accumulation-steps"),
    ("grad-checkpoint", "gradient-checkpointing"),
    ("init-adapter", "start-from"),
    ("iters", "max-steps"),
    ("kto-chosen-weight", "desirable-weight"),
    ("kto-rejected-weight", "undesirable-weight"),
    ("lr", "learning-rate"),
    ("lr-scheduler-type", "lr-scheduler"),
    ("max-seq-len", "max-length"),
    ("max-seq-length", "max-length"),
    ("max-tokens", "max-new-tokens"),
    ("micro-batch-size", "batch-size"),
    ("model-name", "model"),
    ("model-name-or-path", "model"),
    ("model-path", "model"),
    ("n-epochs", "num-epochs"),
    ("neat-packing", "packing"),
    ("num-train-epochs", "num-epochs"),
    ("oft-rank", "oft-r"),
    ("new-special-tokens", "add-special-tokens"),
    ("optim", "optimizer"),
    ("out", "output"),
    ("output-dir", "output"),
    ("output-path", "output"),
    ("per-device-eval-batch-size", "eval-batch-size"),
    ("per-device-train-batch-size", "batch-size"),
    ("pref-beta", "beta"),
    ("pref-loss", "loss-type"),
    ("quantization-type", "bnb-4bit-quant-type"),
    ("sample-packing", "packing"),
    ("save-every", "save-steps"),
    ("sequence-len", "max-length"),
    ("steps", "max-steps"),
    ("steps-per-eval", "eval-steps"),
    ("steps-per-report", "logging-steps"),
    ("temp", "temperature"),
    ("tokens", "add-tokens"),
    ("train-data", "data"),
    ("train-file", "data"),
    ("valid-data", "eval-data"),
    ("validation-data", "eval-data"),
    ("validation-file", "eval-data"),
    ("warmup", "warmup-steps"),
];

/// The same for names that mean what a training begins with, or where it writes, and elsewhere the adapter that is
/// used.
const OF_TRAINING: [(&str, &str); 2] = [
    ("adapter-name-or-path", "start-from"),
    ("adapter-path", "output"),
];

/// The option of a training here that a name of another program means, both with hyphens.
pub(super) fn own(name: &str) -> Option<&'static str> {
    let mut all = SYNONYMS.iter().chain(&OF_TRAINING);
    let found = all.find(|(other, _)| *other == name);
    found.map(|(_, own)| *own)
}

/// A command that takes its options under their other names, too.
pub(super) fn accepting(mut command: Command) -> Command {
    let long = |arg: &clap::Arg| arg.get_long().map(str::to_owned);
    let longs: Vec<String> = command.get_arguments().filter_map(long).collect();
    let trains = longs.iter().any(|long| long == "start-from");
    let by_use = OF_TRAINING.iter().map(|(other, own)| match trains {
        true => (*other, *own),
        false => (*other, "adapter"),
    });
    for (other, own) in SYNONYMS.iter().copied().chain(by_use) {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(own));
        let id = arg.map(|arg| arg.get_id().clone());
        if let Some(id) = id.filter(|_| !longs.iter().any(|long| *long == *other)) {
            command = command.mut_arg(id, |arg| arg.alias(other));
        }
    }
    command
}

/// An argument whose name, as in other programs, may be written with underscores.
pub(super) fn hyphenated(argument: std::ffi::OsString) -> std::ffi::OsString {
    match argument.to_str() {
        Some(text) if text.starts_with("--") => {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let name = name.replace('_', "-");
            match value {
                Some(value) => format!("{name}={value}").into(),
                None => name.into(),
            }
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::program;

    #[test]
    fn each_is_a_name_of_an_option_and_of_one_alone() {
        let program = program();
        let commands: Vec<_> = program.get_subcommands().collect();
        let has = |command: &Command, name: &str| {
            let mut args = command.get_arguments();
            args.any(|arg| arg.get_long() == Some(name))
        };
        for (other, own) in SYNONYMS {
            assert!(commands.iter().any(|command| has(command, own)), "{own}");
            let both = commands.iter().any(|c| has(c, other) && has(c, own));
            assert!(!both, "{other} is an option beside {own}");
        }
    }

    #[test]
    fn names_may_have_underscores() {
        for (given, expected) in [
            ("--learning_rate=a_b", "--learning-rate=a_b"),
            ("--lr_scheduler_type", "--lr-scheduler-type"),
            ("a_b", "a_b"),
            ("-a_b", "-a_b"),
        ] {
            assert_eq!(hyphenated(given.into()), expected);
        }
    }
}
