//! Options of other programs that none of this one stands for: what their values come to here, or why
//! there is nothing of the kind.

mod table;

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use self::table::{Anyway, FOREIGN, Foreign, OFF};
use super::values::text;

/// Options whose values become values of others.
const TRANSLATED: &[&str] = &[
    "bf16",
    "completion-only-loss",
    "dataset-text-field",
    "datasets",
    "disable-gradient-checkpointing",
    "evals-per-epoch",
    "lora-target-linear",
    "mask-history",
    "mask-prompt",
    "oft-target",
    "quantization-bit",
    "resume",
    "resume-from-checkpoint",
    "rl",
    "saves-per-epoch",
    "train-on-inputs",
    "train-on-prompt",
    "val-set-size",
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
        // A machine that does not multiply it is not slower in f32.
        ("bf16", "true") => json!({"activation_dtype": "bf16", "compute_dtype": "auto"}),
        ("bf16", "auto") => json!({"compute_dtype": "auto"}),
        ("completion-only-loss" | "mask-prompt", "false")
        | ("train-on-inputs" | "train-on-prompt", "true") => json!({"train_on": "all"}),
        // What is learned without any of them.
        ("completion-only-loss" | "mask-prompt", "true") => json!({}),
        ("mask-history", "true") => json!({"train_on": "last"}),
        // The name that it has anyway.
        ("dataset-text-field", "text") => json!({}),
        ("dataset-text-field", _) if !is_off => json!({"columns": format!("text={text}")}),
        ("datasets", _) => json!({"data": paths(value)?}),
        ("evals-per-epoch", "1") => json!({"eval_strategy": "epoch"}),
        ("saves-per-epoch", "1") => json!({"save_strategy": "epoch"}),
        ("evals-per-epoch", _) if is_off => json!({"eval_strategy": "no"}),
        ("saves-per-epoch", _) if is_off => json!({"save_strategy": "no"}),
        ("rl", "ipo") => json!({"stage": "dpo", "loss_type": "ipo"}),
        ("rl", _) if !is_off => json!({"stage": lower}),
        ("val-set-size", _) if !is_off => {
            let size = lower.parse::<f64>();
            let size = size.map_err(|_| anyhow!("`{name}: {text}`: expected a number"))?;
            json!({"val_size": size})
        }
        ("disable-gradient-checkpointing", "true") => json!({"gradient_checkpointing": false}),
        ("oft-target", "all") | ("lora-target-linear", "true") => {
            json!({"target_modules": "all-linear"})
        }
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
        ("evals-per-epoch" | "saves-per-epoch", _) => bail!(
            "`{name}: {text}`: --eval-steps and --save-steps say after how many steps, and --eval-strategy epoch \
             and --save-strategy epoch once in each epoch"
        ),
        _ => bail!("`{name}: {text}`: expected true or false"),
    };
    Ok(options.as_object().cloned())
}

/// The paths of axolotl's list of data. Which form rows have is seen in the rows.
fn paths(list: &Value) -> Result<Vec<&str>> {
    const KNOWN: [&str; 4] = ["path", "type", "ds_type", "split"];
    let Value::Array(list) = list else {
        bail!("`datasets`: expected a list of objects with a `path`");
    };
    let mut splits = list.iter().filter_map(|data| data.get("split")?.as_str());
    if let Some(split) = splits.find(|split| *split != "train") {
        bail!(
            "`datasets`: `split: {split}`: of folders the part for training is read; a path may be that of a file"
        );
    }
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
        .ok_or_else(|| anyhow!("`datasets`: expected objects with a `path`"))
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
            ("model-type", json!("AutoModelForCausalLM")),
            ("strict", json!(false)),
            ("train-on-inputs", json!(false)),
            ("mask-prompt", json!("true")),
            ("completion-only-loss", json!(true)),
            ("assistant-only-loss", json!(true)),
            ("val-set-size", json!(0.0)),
            ("mask-history", json!(false)),
            ("enable-liger-kernel", json!(true)),
            ("mix-strategy", json!("concat")),
            ("streaming", json!(false)),
            ("torch-dtype", json!("bfloat16")),
            (
                "gradient-checkpointing-kwargs",
                json!({"use_reentrant": false}),
            ),
            ("save-safetensors", json!(true)),
            ("use-peft", json!("true")),
            ("train", json!("true")),
            ("dataset-text-field", json!("text")),
            ("rl", json!("")),
        ] {
            assert_eq!(becomes(name, value), json!({}), "{name}");
        }
    }

    #[test]
    fn values_are_translated_or_said_to_be_impossible() {
        assert_eq!(
            becomes("bf16", json!(true)),
            json!({"activation_dtype": "bf16", "compute_dtype": "auto"})
        );
        let auto = becomes("bf16", json!("auto"));
        assert_eq!(auto, json!({"compute_dtype": "auto"}));
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
        for (name, value, expected) in [
            ("train-on-inputs", json!(true), json!({"train_on": "all"})),
            ("train-on-prompt", json!("true"), json!({"train_on": "all"})),
            (
                "completion-only-loss",
                json!(false),
                json!({"train_on": "all"}),
            ),
            ("mask-history", json!(true), json!({"train_on": "last"})),
            ("val-set-size", json!(0.1), json!({"val_size": 0.1})),
            (
                "evals-per-epoch",
                json!(1),
                json!({"eval_strategy": "epoch"}),
            ),
            ("saves-per-epoch", json!(0), json!({"save_strategy": "no"})),
            (
                "lora-target-linear",
                json!(true),
                json!({"target_modules": "all-linear"}),
            ),
            (
                "datasets",
                json!([{"path": "a", "split": "train"}]),
                json!({"data": ["a"]}),
            ),
            ("rl", json!("dpo"), json!({"stage": "dpo"})),
            (
                "rl",
                json!("ipo"),
                json!({"stage": "dpo", "loss_type": "ipo"}),
            ),
            (
                "dataset-text-field",
                json!("body"),
                json!({"columns": "text=body"}),
            ),
        ] {
            assert_eq!(becomes(name, value), expected, "{name}");
        }
        for (name, value, says) in [
            ("saves-per-epoch", json!(4), "--save-steps"),
            ("interleave-probs", json!("0.5,0.5"), "PATH:WEIGHT"),
            ("rope-scaling", json!("linear"), "config.json"),
            (
                "special-tokens",
                json!({"pad_token": "x"}),
                "tokenizer_config.json",
            ),
            ("data-seed", json!(7), "--seed"),
            ("use-peft", json!(false), "adapters alone"),
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
            ("datasets", json!([{"path": "a", "split": "test"}]), "split"),
            ("num-layers", json!(8), "layers_to_transform"),
            ("lora-alpha", json!(16), "no scale"),
        ] {
            let error = translate(name, &value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(translate("no-such-thing", &json!(1)).unwrap(), None);
    }
}
