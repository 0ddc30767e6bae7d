//! Byte pairs of bytes, as GPT-2 has them.

use qoft_scheme::Result;
use serde_json::{Value, json};

use super::Parts;
use super::split::{Split, bytes};
use super::vocabulary::Vocabulary;
use crate::file::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";
const SPLIT: &str = "tokenizer.ggml.pre";

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
