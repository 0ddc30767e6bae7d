//! Options of other programs that none of this one stands for: what their values come to here, or why
//! there is nothing of the kind.

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::values::text;

/// What an option of another program comes to.
struct Foreign {
    names: &'static [&'static str],
    /// Values, beside those of [`OFF`], that ask for nothing that is not so anyway.
    given_anyway: Anyway,
    /// Why other values are errors.
    reason: &'static str,
}

enum Anyway {
    /// Only those that switch it off.
    Off,
    /// Any: it changes nothing here.
    Any,
    These(&'static [&'static str]),
}

/// Values by which something is not wanted.
const OFF: [&str; 7] = ["false", "no", "none", "null", "0", "0.0", ""];

const fn off(names: &'static [&'static str], reason: &'static str) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::Off,
        reason,
    }
}

const fn any(names: &'static [&'static str], reason: &'static str) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::Any,
        reason,
    }
}

const fn these(
    names: &'static [&'static str],
    values: &'static [&'static str],
    reason: &'static str,
) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::These(values),
        reason,
    }
}

const FOREIGN: &[Foreign] = &[
    these(
        &["num-beams"],
        &["1"],
        "texts are made token by token, without beams; --do-sample, --temperature, --top-k, --top-p and \
         --min-p say how each is chosen",
    ),
    off(
        &["alpha", "lora-alpha"],
        "qoft trains rotations, not LoRA, and they have no scale; how much of an adapter is applied is \
         said where it is used: --adapter PATH=STRENGTH",
    ),
    off(
        &["lora-r", "lora-rank", "lora-target", "rank"],
        "qoft trains rotations, not LoRA; the size of an adapter is that of its blocks: \
         --oft-block-size; its layers are those of --target-modules",
    ),
    off(
        &["lora-dropout"],
        "qoft trains rotations, not LoRA; what OFT has for dropout is --module-dropout",
    ),
    off(
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
    these(
        &["finetuning-type"],
        &["oft"],
        "qoft trains rotations: oft, or another family by --peft-type",
    ),
    off(
        &[
            "ref-model",
            "ref-model-adapters",
            "ref-model-quantization-bit",
            "reference-free",
            "sync-ref-model",
        ],
        "the reference of dpo and kto is the model without the adapter that trains; an adapter that belongs \
         to it goes below: --adapter PATH",
    ),
    off(
        &[
            "max-completion-length",
            "max-prompt-length",
            "max-target-length",
        ],
        "--max-length is for a prompt and its answer together",
    ),
    these(
        &["f-divergence-type"],
        &["reverse_kl"],
        "the distance to the reference is the reverse Kullback-Leibler divergence",
    ),
    off(
        &["ld-alpha", "use-weighting"],
        "all tokens and pairs count the same",
    ),
    these(
        &["do-train"],
        &["true"],
        "`qoft train` trains; without that, `qoft eval` measures",
    ),
    any(&["do-eval"], "evaluations are on --eval-data"),
    off(&["do-predict"], "`qoft generate` writes text"),
    these(
        &["task-type"],
        &["causal_lm"],
        "qoft trains models that predict the next token: CAUSAL_LM",
    ),
    off(
        &["fp16", "half", "pure-bf16"],
        "qoft computes in float32; only activations can be kept in another format: \
         --activation-dtype",
    ),
    any(&["tf32"], "qoft computes in float32"),
    any(
        &[
            "attn-implementation",
            "flash-attention",
            "flash-attn",
            "sdp-attention",
            "use-unsloth",
        ],
        "qoft has one way to compute attention, which never holds the matrix of scores",
    ),
    off(
        &["deepspeed", "fsdp", "local-rank", "tensor-parallel-size"],
        "each process has the whole model; `mpirun -n N qoft train` trains in several: docs/cluster.md",
    ),
    any(
        &["ddp-find-unused-parameters"],
        "parameters without a gradient are told to the other processes as such",
    ),
    any(
        &[
            "dataloader-num-workers",
            "dataloader-pin-memory",
            "dataset-num-proc",
            "preprocessing-num-workers",
        ],
        "--threads says how many threads compute",
    ),
    any(
        &[
            "include-num-input-tokens-seen",
            "include-tokens-per-second",
            "logging-first-step",
            "low-cpu-mem-usage",
            "overwrite-cache",
            "plot-loss",
            "remove-unused-columns",
            "resize-vocab",
            "use-fast-tokenizer",
        ],
        "it is so anyway",
    ),
    off(
        &[
            "logging-dir",
            "tensorboard",
            "use-wandb",
            "wandb",
            "wandb-project",
        ],
        "nothing is sent anywhere; log.jsonl is in the output folder, and --report-to tensorboard writes \
         event files",
    ),
    any(&["run-name"], "a run is called as its output folder is"),
    these(
        &["logging-strategy"],
        &["steps"],
        "log.jsonl has a row for each step; --logging-steps is for messages",
    ),
    off(
        &[
            "hub-model-id",
            "hub-token",
            "push-to-hub",
            "token",
            "use-auth-token",
        ],
        "`qoft push FOLDER OWNER/NAME` puts an adapter on the Hub; the token is in HF_TOKEN",
    ),
    any(
        &["trust-remote-code"],
        "no code of a model's folder is ever run",
    ),
    any(
        &["overwrite-output-dir"],
        "an output folder that is not empty is never overwritten; --resume-from goes on with its run",
    ),
    these(
        &["metric-for-best-model"],
        &["loss", "eval_loss"],
        "evaluations give a loss: the lowest is the best",
    ),
    off(
        &["greater-is-better", "save-only-model"],
        "the lowest loss is the best, and each checkpoint can be resumed",
    ),
    off(
        &["template"],
        "messages are written by the chat template of the model's folder; --chat-template takes a file, or \
         alpaca, chatml, llama3, mistral, vicuna or zephyr",
    ),
    any(
        &["model-type", "tokenizer-type"],
        "what a folder has is told by its config.json and tokenizer_config.json",
    ),
    any(
        &["eval-sample-packing", "pad-to-sequence-len"],
        "rows of an evaluation are packed as those of the training, and padded to the longest of a batch",
    ),
    any(
        &["dataset-prepared-path"],
        "tokens of data are kept in --data-cache",
    ),
    off(
        &["dataset-dir"],
        "--data takes files and folders, not names of a list",
    ),
    these(
        &["quantization-method"],
        &["bnb"],
        "--quantize SCHEME quantizes by another scheme; `qoft backends` lists them",
    ),
    off(
        &["bits", "q-bits", "qlora", "quantize-bits"],
        "bits are told by the scheme: --load-in-4bit, --load-in-8bit, or --quantize SCHEME",
    ),
];

/// Options whose values become values of others.
const TRANSLATED: &[&str] = &[
    "bf16",
    "datasets",
    "disable-gradient-checkpointing",
    "oft-target",
    "quantization-bit",
    "resume",
    "resume-from-checkpoint",
];

/// Why no value of a name has a meaning here beside those that ask for nothing; `None` for names that are
/// not known.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    find(name).map(|foreign| foreign.reason)
}

fn find(name: &str) -> Option<&'static Foreign> {
    FOREIGN.iter().find(|foreign| foreign.names.contains(&name))
}

/// The names of all options.
fn names() -> impl Iterator<Item = &'static str> {
    let names = FOREIGN.iter().flat_map(|foreign| foreign.names);
    names.chain(TRANSLATED).copied()
}

/// The options here, with underscores, that an option of another program comes to; `None` if it is not
/// known. `name` has hyphens.
pub(super) fn translate(name: &str, value: &Value) -> Result<Option<Map<String, Value>>> {
    let text = text(value);
    let text = text.trim();
    let lower = text.to_lowercase();
    let is_off = OFF.contains(&lower.as_str());
    if let Some(foreign) = find(name) {
        let anyway = match foreign.given_anyway {
            Anyway::Any => true,
            Anyway::Off => is_off,
            Anyway::These(values) => values.contains(&lower.as_str()),
        };
        return match anyway {
            true => Ok(Some(Map::new())),
            false => bail!("`{name}: {text}`: {}", foreign.reason),
        };
    }
    let options = match (name, lower.as_str()) {
        (name, _) if !TRANSLATED.contains(&name) => return Ok(None),
        ("bf16", "true") => json!({"activation_dtype": "bf16"}),
        // Where a processor multiplies it; all computing here is in float32.
        ("bf16", "auto") => json!({}),
        ("datasets", _) => json!({"data": paths(value)?}),
        ("disable-gradient-checkpointing", "true") => json!({"gradient_checkpointing": false}),
        ("oft-target", "all") => json!({"target_modules": "all-linear"}),
        ("oft-target", _) => json!({"target_modules": text}),
        // As LLaMA-Factory loads it.
        ("quantization-bit", "4") => json!({
            "load_in_4bit": true,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true,
        }),
        ("quantization-bit", "8") => json!({"load_in_8bit": true}),
        ("resume" | "resume-from-checkpoint", "true") => json!({"resume_from": "last"}),
        ("resume" | "resume-from-checkpoint", _) if !is_off => json!({"resume_from": text}),
        _ if is_off => json!({}),
        ("quantization-bit", _) => bail!(
            "`{name}: {text}`: bitsandbytes has 4 and 8 bits; --quantize SCHEME,key=value has others, \
             such as `--quantize hqq,nbits=3`"
        ),
        _ => bail!("`{name}: {text}`: expected true or false"),
    };
    Ok(options.as_object().cloned())
}

/// The paths of axolotl's list of data. Which form rows have is seen in the rows.
fn paths(list: &Value) -> Result<Vec<&str>> {
    const KNOWN: [&str; 3] = ["path", "type", "ds_type"];
    let Value::Array(list) = list else {
        bail!("`datasets`: expected a list of objects with a `path`");
    };
    let mut keys = list.iter().filter_map(Value::as_object).flat_map(Map::keys);
    if let Some(key) = keys.find(|key| !KNOWN.contains(&key.as_str())) {
        bail!(
            "`datasets`: there is no `{key}` here; --columns, --data-format, --train-on and \
             --chat-template say how data is read"
        );
    }
    let paths = list
        .iter()
        .map(|data| data.get("path").and_then(Value::as_str));
    paths
        .collect::<Option<Vec<&str>>>()
        .ok_or_else(|| anyhow::anyhow!("`datasets`: expected objects with a `path`"))
}

/// The command with all of these options, hidden.
pub(super) fn accepting(command: Command) -> Command {
    let arg = |name: &'static str| {
        let arg = Arg::new(name).long(name).hide(true);
        let arg = arg.num_args(0..=1).default_missing_value("true");
        arg.action(ArgAction::Set)
    };
    names().fold(command, |command, name| command.arg(arg(name)))
}

/// Those that are given.
pub(super) fn given(matches: &ArgMatches) -> Map<String, Value> {
    let value = |name| matches.try_get_one::<String>(name).ok().flatten();
    names()
        .filter_map(|name| Some((name.to_owned(), value(name)?.clone().into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(name: &str, value: Value) -> Value {
        translate(name, &value).unwrap().unwrap().into()
    }

    #[test]
    fn values_that_ask_for_nothing_are_fine() {
        for (name, value) in [
            ("finetuning-type", json!("oft")),
            ("run-name", json!("a run")),
            ("fp16", json!(false)),
            ("wandb-project", json!(null)),
            ("lora-rank", json!(0)),
            ("preprocessing-num-workers", json!(16)),
            ("task-type", json!("CAUSAL_LM")),
            ("resume-from-checkpoint", json!(null)),
            ("bf16", json!("false")),
            ("bf16", json!("auto")),
            ("model-type", json!("AutoModelForCausalLM")),
        ] {
            assert_eq!(becomes(name, value), json!({}), "{name}");
        }
    }

    #[test]
    fn values_are_translated_or_said_to_be_impossible() {
        assert_eq!(
            becomes("bf16", json!(true)),
            json!({"activation_dtype": "bf16"})
        );
        let four = becomes("quantization-bit", json!(4));
        assert_eq!(four["bnb_4bit_quant_type"], "nf4");
        assert_eq!(
            becomes("quantization-bit", json!("8")),
            json!({"load_in_8bit": true})
        );
        let last = json!({"resume_from": "last"});
        assert_eq!(becomes("resume-from-checkpoint", json!("true")), last);
        let list = json!([{"path": "a.jsonl", "type": "alpaca"}, {"path": "b"}]);
        assert_eq!(becomes("datasets", list), json!({"data": ["a.jsonl", "b"]}));
        for (name, value, says) in [
            ("finetuning-type", json!("lora"), "rotations"),
            ("quantization-bit", json!(3), "hqq"),
            ("use-wandb", json!(true), "log.jsonl"),
            ("bf16", json!("maybe"), "true or false"),
            ("template", json!("llama3"), "alpaca, chatml, llama3"),
            (
                "datasets",
                json!([{"path": "a", "roles_to_train": []}]),
                "roles_to_train",
            ),
            ("datasets", json!([{"type": "alpaca"}]), "with a `path`"),
            ("lora-alpha", json!(16), "no scale"),
        ] {
            let error = translate(name, &value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(translate("no-such-thing", &json!(1)).unwrap(), None);
    }
}
