//! Names that other programs have for options of this one, and for what it does not have.

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
    ("double-quantization", "--bnb-4bit-use-double-quant"),
    ("dropout", "--module-dropout"),
    ("epochs", "--num-epochs"),
    ("eval-dataset", "--eval-data"),
    ("eval-file", "--eval-data"),
    ("eval-batch-size", "--batch-size"),
    ("eval-strategy", "--eval-steps"),
    ("evaluation-strategy", "--eval-steps"),
    ("grad-accum", "--gradient-accumulation-steps"),
    ("gradient-accumulation", "--gradient-accumulation-steps"),
    ("logging-strategy", "--logging-steps"),
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
    ("quantization-type", "--bnb-4bit-quant-type"),
    ("resume", "--resume-from"),
    ("resume-from-checkpoint", "--resume-from"),
    ("save-strategy", "--save-steps"),
    ("sequence-len", "--max-length"),
    ("steps", "--max-steps"),
    ("temp", "--temperature"),
    ("train-data", "--data"),
    ("train-file", "--data"),
    ("valid-data", "--eval-data"),
    ("validation-data", "--eval-data"),
    ("validation-file", "--eval-data"),
    ("warmup", "--warmup-steps"),
];

/// Options of the same programs that nothing here stands for, and why.
const NONE_HERE: &[(&[&str], &str)] = &[
    (
        &["alpha", "lora-alpha"],
        "qoft trains rotations, not LoRA, and they have no scale; how much of an adapter is applied is \
         said where it is used: --adapter PATH=STRENGTH",
    ),
    (
        &["lora-r", "lora-rank", "rank"],
        "qoft trains rotations, not LoRA; the size of an adapter is that of its blocks: \
         --oft-block-size",
    ),
    (
        &["lora-dropout"],
        "qoft trains rotations, not LoRA; what OFT has for dropout is --module-dropout",
    ),
    (
        &[
            "init-lora-weights",
            "lora-bias",
            "loraplus-lr-ratio",
            "loftq-config",
            "pissa-init",
            "use-dora",
            "use-loraplus",
            "use-rslora",
        ],
        "qoft trains rotations, not LoRA, DoRA or their kin (--peft-type: oft, boft or hra)",
    ),
    (
        &[
            "do-eval",
            "do-predict",
            "do-train",
            "finetuning-type",
            "stage",
            "task-type",
        ],
        "what is done says the command: `qoft train` fine-tunes an adapter, and evaluates it on \
         --eval-data",
    ),
    (
        &["fp16", "half", "pure-bf16", "tf32"],
        "qoft computes in float32; only activations can be kept in another format: \
         --activation-dtype",
    ),
    (
        &[
            "attn-implementation",
            "flash-attention",
            "flash-attn",
            "sdp-attention",
            "use-unsloth",
        ],
        "qoft has one way to compute attention, which never holds the matrix of scores",
    ),
    (
        &[
            "ddp-find-unused-parameters",
            "deepspeed",
            "fsdp",
            "local-rank",
            "tensor-parallel-size",
        ],
        "qoft trains on one device",
    ),
    (
        &[
            "group-by-length",
            "neat-packing",
            "packing",
            "sample-packing",
        ],
        "each row of the data is a sequence of its own; they are not packed",
    ),
    (
        &[
            "logging-dir",
            "report-to",
            "run-name",
            "tensorboard",
            "use-wandb",
            "wandb",
            "wandb-project",
        ],
        "nothing is sent anywhere; log.jsonl and loss.svg are in the output folder",
    ),
    (
        &[
            "hub-model-id",
            "hub-token",
            "push-to-hub",
            "token",
            "use-auth-token",
        ],
        "nothing is downloaded or uploaded",
    ),
    (
        &["trust-remote-code"],
        "no code of a model's folder is ever run",
    ),
    (
        &["overwrite-cache", "overwrite-output-dir"],
        "an output folder that is not empty is never overwritten; --resume-from goes on with its run",
    ),
    (
        &[
            "early-stopping-patience",
            "load-best-model-at-end",
            "metric-for-best-model",
            "save-total-limit",
        ],
        "all checkpoints stay; which one is used you choose: each checkpoint-N is an adapter",
    ),
    (
        &["adam-beta1", "adam-beta2", "adam-epsilon"],
        "AdamW has the values of torch: betas 0.9 and 0.999, epsilon 1e-8",
    ),
    (
        &["warmup-ratio"],
        "warming up is told in steps: --warmup-steps",
    ),
    (
        &["chat-template", "template"],
        "messages are written by the chat template of the model's folder",
    ),
    (
        &[
            "bits",
            "q-bits",
            "qlora",
            "quantization-bit",
            "quantize-bits",
        ],
        "bits are told by the scheme: --load-in-4bit, --load-in-8bit, or --load-in SCHEME",
    ),
];

/// Characters of an option that may be wrong in one that is meant: one in so many, but one at least.
const TYPO: usize = 4;

/// Puts what was probably meant in the place of what only looks alike, or says why there is no such
/// option. `command` is the one that got it.
pub fn with_suggestion(mut error: clap::Error, command: Option<&clap::Command>) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let has = |option: &str| {
        let mut options = command.into_iter().flat_map(clap::Command::get_arguments);
        options.any(|arg| arg.get_long() == Some(option))
    };
    let given = bare(given);
    let (meant, reason) = (
        meant(&given).filter(|meant| has(first(meant))),
        reason(&given),
    );
    let alike = match error.remove(ContextKind::SuggestedArg) {
        Some(ContextValue::String(alike)) if reason.is_none() && is_typo(&given, &bare(&alike)) => {
            Some(alike)
        }
        _ => None,
    };
    if let Some(meant) = meant.map(str::to_owned).or(alike) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(meant));
    } else if let Some(reason) = reason {
        let tips = vec![reason.into()];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The option that is meant by a name of another program.
pub(super) fn meant(given: &str) -> Option<&'static str> {
    let name = bare(given);
    let found = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    found.map(|(_, meant)| *meant)
}

/// Why nothing stands for a name of another program.
pub(super) fn reason(given: &str) -> Option<&'static str> {
    let name = bare(given);
    let found = NONE_HERE.iter().find(|(names, _)| names.contains(&&*name));
    found.map(|(_, reason)| *reason)
}

/// The name of an option without hyphens before it, a value behind it, and underscores.
fn bare(option: &str) -> String {
    let name = option.trim_start_matches('-');
    let name = name.split(['=', ' ']).next().unwrap_or_default();
    name.replace('_', "-")
}

/// The name of the option in `--option value`.
fn first(meant: &str) -> &str {
    let option = meant.split(' ').next().unwrap_or_default();
    option.trim_start_matches('-')
}

/// Whether an option may be another one with a slip of the finger in it.
fn is_typo(given: &str, meant: &str) -> bool {
    strsim::osa_distance(given, meant) <= (meant.len() / TYPO).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, Parser};

    fn says(args: &[&str]) -> String {
        let error = Cli::try_parse_from([&["qoft"], args].concat()).unwrap_err();
        let program = Cli::command();
        let command = program.find_subcommand(args[0]);
        with_suggestion(error, command).to_string()
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
        for typo in ["--learnin-rate=1", "--laerning-rate=1", "--learningrate=1"] {
            let says = says(&["train", typo]);
            assert!(says.contains("'--learning-rate'"), "{says}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_not_suggested() {
        for (given, reason) in [
            ("--lora-alpha=16", "not LoRA"),
            ("--lora_alpha=16", "not LoRA"),
            ("--use-dora", "DoRA"),
            ("--lora-rank=8", "--oft-block-size"),
            ("--bits=4", "--load-in-4bit"),
            ("--fp16", "float32"),
            ("--deepspeed=a.json", "one device"),
            ("--trust-remote-code", "no code"),
        ] {
            let says = says(&["train", given]);
            assert!(says.contains("tip:") && says.contains(reason), "{says}");
            assert!(!says.contains("a similar argument"), "{says}");
        }
        for (command, given) in [
            ("train", "--remove-unused-columns"),
            ("train", "--neftune-noise-alpha=5"),
            ("train", "--use-liger"),
            // Options that only another command has.
            ("inspect", "--lr=1"),
            ("eval", "--max-tokens=1"),
        ] {
            let says = says(&[command, given]);
            assert!(!says.contains("a similar argument"), "{says}");
        }
    }

    #[test]
    fn what_is_suggested_exists() {
        let program = Cli::command();
        let has = |command: &clap::Command, option: &str| {
            let mut options = command.get_arguments();
            options.any(|arg| arg.get_long() == Some(option))
        };
        let commands: Vec<_> = program.get_subcommands().collect();
        for (other, meant) in OTHER_NAMES {
            let option = first(meant);
            assert!(commands.iter().any(|c| has(c, option)), "{meant}");
            // Another command may have an option of this name.
            let both = commands.iter().find(|c| has(c, option) && has(c, other));
            assert!(both.is_none(), "{other} is an option beside {meant}");
            assert_eq!(reason(other), None, "{other}");
        }
        let train = program.find_subcommand("train").expect("a command");
        for (others, reason) in NONE_HERE {
            let own = others.iter().find(|other| has(train, other));
            assert_eq!(own, None, "{reason}");
            for word in reason
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                let option = word.trim_matches(|c: char| !c.is_alphanumeric());
                assert!(commands.iter().any(|c| has(c, option)), "{word}");
            }
        }
    }
}
