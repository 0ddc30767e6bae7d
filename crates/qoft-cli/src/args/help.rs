//! What `--help` has beside options: commands in groups, and examples; and what `--version` says.

use std::sync::LazyLock;

use clap::Command;
use qoft::core::kernels::simd_level;

/// The commands in the order in which a user comes to them.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "A first look",
        &["quickstart", "inspect", "backends", "devices"],
    ),
    ("Training", &["train", "data", "estimate", "lr-find"]),
    (
        "Using what was trained",
        &["generate", "chat", "serve", "eval", "push"],
    ),
    (
        "Writing models",
        &["merge", "export", "quantize", "dequantize"],
    ),
    ("The program", &["completions", "man", "help"]),
];

/// Commands as one would type them.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "quickstart",
        &[
            "qoft quickstart",
            "qoft quickstart --output first --max-steps 50",
        ],
    ),
    (
        "inspect",
        &["qoft inspect MODEL", "qoft inspect org/name --json"],
    ),
    ("backends", &["qoft backends"]),
    ("devices", &["qoft devices"]),
    (
        "train",
        &[
            "qoft train --model MODEL --load-in-4bit --bnb-4bit-quant-type nf4 --data train.jsonl \
             --output adapter",
            "qoft train --model org/name --data org/dataset --val-size 0.05 --packing --output adapter",
            "qoft train --config train.yaml --learning-rate 1e-4",
            "qoft train --stage dpo --model MODEL --data preferences.jsonl --output adapter",
            "qoft train --resume-from adapter",
        ],
    ),
    (
        "data preview",
        &["qoft data preview --model MODEL --data train.jsonl --plot lengths.svg"],
    ),
    (
        "estimate",
        &["qoft estimate --model MODEL --data train.jsonl --batch-size 4"],
    ),
    (
        "lr-find",
        &["qoft lr-find --model MODEL --data train.jsonl"],
    ),
    (
        "generate",
        &[
            "qoft generate --model MODEL --adapter adapter --prompt \"Once upon a time\"",
            "qoft generate --model MODEL --adapter adapter=0.5 --chat --prompt \"Who are you?\"",
            "qoft generate --model MODEL --prompts prompts.jsonl --batch-size 8",
        ],
    ),
    (
        "chat",
        &["qoft chat --model MODEL --adapter adapter --system \"Be brief.\""],
    ),
    #[cfg(feature = "serve")]
    (
        "serve",
        &[
            "qoft serve --model MODEL --adapter mine=adapter",
            "qoft serve --model MODEL --host 0.0.0.0 --api-key KEY --port 8000",
        ],
    ),
    (
        "eval",
        &[
            "qoft eval --model MODEL --adapter adapter --data eval.jsonl",
            "qoft eval --model MODEL --adapter adapter --data questions.jsonl",
        ],
    ),
    ("push", &["qoft push adapter org/name --private"]),
    (
        "merge",
        &[
            "qoft merge --model MODEL --adapter adapter --output merged --dequantize",
            "qoft merge --model MODEL --adapter adapter --output merged --calibration train.jsonl",
        ],
    ),
    (
        "export",
        &[
            "qoft export --to lora --rank 32 --model MODEL --adapter adapter --output lora",
            "qoft export --to gguf --gguf-type q4_k_m --model MODEL --output model.gguf",
        ],
    ),
    (
        "quantize",
        &["qoft quantize --model MODEL --scheme gptq,bits=4,group_size=128 --output quantized"],
    ),
    (
        "dequantize",
        &["qoft dequantize MODEL --dtype bf16 --output dense"],
    ),
    (
        "completions",
        &["qoft completions bash > ~/.local/share/bash-completion/completions/qoft"],
    ),
    ("man", &["qoft man ~/.local/share/man/man1"]),
];

/// Puts the help of the program together.
pub fn helping(program: Command) -> Command {
    let examples = |program, (path, examples): &(&'static str, &'static [&'static str])| {
        let names: Vec<&str> = path.split(' ').collect();
        with_examples(program, &names, examples)
    };
    let program = EXAMPLES.iter().fold(program, examples);
    let commands = listed(&program);
    program
        .long_version(VERSION.as_str())
        .help_template(format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{commands}\nOptions:\n{{options}}\n\n\
         `qoft COMMAND --help` has the options of a command, and examples.\n"
        ))
}

fn with_examples(command: Command, path: &[&'static str], examples: &[&str]) -> Command {
    match path {
        [] => command.after_help(format!("Examples:\n  {}", examples.join("\n  "))),
        [name, rest @ ..] => {
            command.mut_subcommand(name, |command| with_examples(command, rest, examples))
        }
    }
}

/// The commands with what they are for, in their groups.
fn listed(program: &Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        text.push_str(&format!("{title}:\n"));
        for name in *names {
            let about = match program.find_subcommand(name) {
                Some(command) => command.get_about().map(ToString::to_string),
                None if *name == "help" => Some("Print this, or the help of a command".to_owned()),
                None => continue,
            };
            text.push_str(&format!("  {name:<12} {}\n", about.unwrap_or_default()));
        }
        text.push('\n');
    }
    text.pop();
    text
}

/// What `--version` says behind the name.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = FEATURES
        .iter()
        .filter(|(_, is_on)| *is_on)
        .map(|(name, _)| *name);
    format!(
        "{}\nfeatures: {}\ninstructions: {}",
        env!("CARGO_PKG_VERSION"),
        features.collect::<Vec<_>>().join(", "),
        simd_level()
    )
});

macro_rules! features {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, cfg!(feature = $name))),+]
    };
}

/// The Cargo features, and whether this program has them.
const FEATURES: &[(&str, bool)] = features![
    "aqlm",
    "awq",
    "bnb",
    "compressed-tensors",
    "eetq",
    "fp8",
    "gguf",
    "gptq",
    "hqq",
    "inc-fp8",
    "mlx",
    "modelopt",
    "mxfp4",
    "torchao",
    "hub",
    "parquet",
    "parquet-zstd",
    "serve",
    "ndarray",
    "wgpu",
    "vulkan",
    "metal",
    "cuda",
    "rocm",
    "mpi",
    "autotune",
];

#[cfg(test)]
mod tests {
    use super::super::program;
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        let program = program();
        let mut commands: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        if !commands.contains(&"help") {
            commands.push("help");
        }
        grouped.sort_unstable();
        commands.sort_unstable();
        assert_eq!(grouped, commands);
    }

    /// The words of a line, as a shell sees them: what stands in quotes is one.
    fn words(line: &str) -> Vec<&str> {
        let parts = line.split('"').enumerate();
        let words = parts.map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        });
        words.collect::<Vec<Vec<&str>>>().concat()
    }

    #[test]
    fn examples_are_valid() {
        for (_, examples) in EXAMPLES {
            for example in *examples {
                let line = example.split(" > ").next().unwrap();
                let parsed = program().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn the_features_are_those_of_the_manifest() {
        let manifest = include_str!("../../Cargo.toml");
        let section = manifest.split("[features]").nth(1).unwrap();
        let section = section.split("\n[").next().unwrap();
        let names = section
            .lines()
            .filter_map(|line| Some(line.split_once(" = ")?.0));
        let mut names: Vec<&str> = names
            .filter(|name| !["default", "all-schemes"].contains(name))
            .collect();
        let mut known: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, names);
    }
}
