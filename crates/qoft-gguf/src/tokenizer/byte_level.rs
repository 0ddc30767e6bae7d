//! Byte pairs of bytes, as GPT-2 has them.

use qoft_scheme::Result;
use serde_json::{Value, json};

use super::Parts;
use super::vocabulary::Vocabulary;
use crate::file::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";
const SPLIT: &str = "tokenizer.ggml.pre";

const CASELESS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const REST: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CASED: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How text is split before pairs are merged.
struct Split {
    pre_tokenizer: Value,
    normalizer: Value,
    /// Whether texts begin with a token unless the file says otherwise, and words that are tokens
    /// are not made from pairs.
    llama: bool,
}

fn bytes(use_regex: bool) -> Value {
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
    fn named(name: &str) -> Self {
        match name {
            "default" | "gpt-2" | "gpt2" | "phi-2" => Self::of(bytes(true)),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "smaug-bpe" => Self {
                llama: true,
                ..Self::of(by_expression(&format!(r"{CASELESS}\p{{N}}{{1,3}}{REST}")))
            },
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" => Self {
                normalizer: json!({"type": "NFC"}),
                ..Self::of(by_expression(&format!(r"{CASELESS}\p{{N}}{REST}")))
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
                    "texts are split as GPT-2 does: `{SPLIT}` names `{other}`, which is not known \
                     here, so other tokens may come out"
                );
                Self::of(bytes(true))
            }
        }
    }
}

pub fn parts(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Parts> {
    let merges = metadata.require(MERGES, metadata.texts(MERGES))?;
    let pairs = merges.iter().map(|merge| {
        // A token may begin with what stands between the two.
        let from = merge.chars().next().map_or(0, char::len_utf8);
        let at = merge[from..].find(' ').map(|at| from + at);
        let pair = at.map(|at| json!([merge[..at], merge[at + 1..]]));
        pair.ok_or_else(|| metadata.error(MERGES, format!("`{merge}` is no pair")))
    });
    let pairs: Vec<Value> = pairs.collect::<Result<_>>()?;
    let split = Split::named(metadata.text(SPLIT)?.unwrap_or("default"));
    Ok(Parts {
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": split.llama,
            "vocab": vocabulary.ids(),
            "merges": pairs,
        }),
        normalizer: split.normalizer,
        pre_tokenizer: split.pre_tokenizer,
        post_processor: Some(bytes(true)),
        decoder: bytes(true),
        begins: split.llama,
    })
}
