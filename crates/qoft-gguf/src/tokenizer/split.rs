//! How text is split before pairs are merged, by the names that files have for it.

use serde_json::{Value, json};

const CASELESS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const REST: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CASED: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How text is split before pairs are merged.
pub struct Split {
    /// In the terms of `tokenizer.json`.
    pub pre_tokenizer: Value,
    /// The same for what is done before.
    pub normalizer: Value,
    /// Whether texts begin with a token unless the file says otherwise, and words that are tokens
    /// are not made from pairs.
    pub llama: bool,
}

/// Bytes as letters, for texts that are split as GPT-2 does or not at all.
pub fn bytes(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": false,
        "use_regex": use_regex,
    })
}

fn by_expression(expression: &str) -> Value {
    json!({
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": expression},
                "behavior": "Isolated",
                "invert": false,
            },
            bytes(false),
        ],
    })
}

impl Split {
    fn of(pre_tokenizer: Value) -> Self {
        Self {
            pre_tokenizer,
            normalizer: Value::Null,
            llama: false,
        }
    }

    /// That of a name in files.
    pub fn named(name: &str) -> Self {
        match name {
            "default" | "gpt-2" | "gpt2" | "phi-2" => Self::of(bytes(true)),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => Self {
                llama: true,
                ..Self::of(by_expression(&threes()))
            },
            "smaug-bpe" | "dbrx" => Self::of(by_expression(&threes())),
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" => Self {
                normalizer: json!({"type": "NFC"}),
                ..Self::of(by_expression(&ones()))
            },
            "tekken" => Self {
                llama: true,
                ..Self::of(by_expression(CASED))
            },
            "smollm" | "starcoder" | "refact" | "command-r" => Self::of(json!({
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)],
            })),
            other => {
                tracing::warn!(
                    "texts are split as GPT-2 does: the file names `{other}`, which is not known \
                     here, so other tokens may come out"
                );
                Self::of(bytes(true))
            }
        }
    }
}

/// Digits in groups of three.
fn threes() -> String {
    format!(r"{CASELESS}\p{{N}}{{1,3}}{REST}")
}

/// Digits one by one.
fn ones() -> String {
    format!(r"{CASELESS}\p{{N}}{REST}")
}

/// The name for an expression, in a tokenizer that takes words which are tokens as they are or not.
pub fn name_of(expression: &str, ignores_merges: bool) -> Option<&'static str> {
    match expression {
        _ if expression == threes() && ignores_merges => Some("llama-bpe"),
        _ if expression == threes() => Some("smaug-bpe"),
        _ if expression == ones() => Some("qwen2"),
        CASED => Some("tekken"),
        _ => None,
    }
}
