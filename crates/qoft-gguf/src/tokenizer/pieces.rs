//! Pairs of pieces with scores, as SentencePiece has them.

use std::collections::HashMap;

use qoft_scheme::Result;
use serde_json::{Value, json};

use super::Parts;
use super::vocabulary::{Vocabulary, kind};
use crate::file::Metadata;

const SCORES: &str = "tokenizer.ggml.scores";
/// What stands for a space.
const SPACE: &str = "\u{2581}";
/// Characters of a piece that pairs are looked for in. Longer pieces are runs of one character.
const LONGEST: usize = 512;

pub fn parts(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Parts> {
    let scores = metadata.require(SCORES, metadata.floats(SCORES))?;
    if scores.len() != vocabulary.tokens.len() {
        let reason = format!(
            "{} scores of {} tokens",
            scores.len(),
            vocabulary.tokens.len()
        );
        return Err(metadata.error(SCORES, reason));
    }
    let prefix = metadata
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = vocabulary.role("unk_token");
    let unknown = unknown.or_else(|| vocabulary.kinds.iter().position(|k| *k == kind::UNKNOWN));
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Parts {
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|id| &vocabulary.tokens[id]),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary.ids(),
            "merges": merges(vocabulary, scores),
        }),
        normalizer: match prefix {
            true => json!({"type": "Sequence", "normalizers": [prepend, replace]}),
            false => replace,
        },
        pre_tokenizer: Value::Null,
        post_processor: None,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        begins: true,
    })
}

/// The pairs of pieces that are pieces, those of the highest score first.
fn merges(vocabulary: &Vocabulary, scores: &[f64]) -> Vec<[String; 2]> {
    let pieces = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(scores);
    let pieces = pieces.filter(|((_, kind), _)| matches!(**kind, kind::NORMAL | kind::USER));
    let pieces: Vec<(&str, f64)> = pieces
        .map(|((token, _), score)| (token.as_str(), *score))
        .collect();
    let known: HashMap<&str, f64> = pieces.iter().copied().collect();
    let mut all: Vec<(f64, f64, [&str; 2])> = Vec::new();
    for (piece, score) in pieces {
        for (at, _) in piece.char_indices().skip(1).take(LONGEST) {
            let (left, right) = piece.split_at(at);
            if let Some(of_left) = known.get(left)
                && known.contains_key(right)
            {
                all.push((score, *of_left, [left, right]));
            }
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    all.into_iter()
        .map(|(.., pair)| pair.map(str::to_owned))
        .collect()
}
