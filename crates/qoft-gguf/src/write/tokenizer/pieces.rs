//! Pieces with scores, as SentencePiece has them: of two neighbours, those become one first that give
//! the piece with the highest score.

use std::collections::HashMap;

use qoft_scheme::Result;
use serde_json::Value;

use super::Tokenizer;
use super::vocabulary::Vocabulary;
use crate::file::Value as Stored;
use crate::tokenizer::kind;
use crate::write::keys::NewKeys;

/// What stands for a space.
const SPACE: &str = "\u{2581}";
/// The score of rows without a token.
const NO_SCORE: f64 = -10_000.0;

/// Writes pairs, the first of which has the highest score.
pub fn write_pairs(
    tokenizer: &Tokenizer,
    vocabulary: &Vocabulary,
    out: &mut NewKeys,
) -> Result<()> {
    let mut places = HashMap::new();
    let merges = tokenizer.merges()?;
    for (place, (left, right)) in merges.iter().enumerate() {
        places.entry(format!("{left}{right}")).or_insert(place);
    }
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds);
    let scores = tokens.map(|(token, kind)| match (*kind, places.get(token)) {
        (kind::NORMAL, Some(place)) => -(*place as f64),
        // Nothing is merged into these.
        (kind::NORMAL, None) => -(merges.len() as f64),
        (kind::UNUSED, _) => NO_SCORE,
        _ => 0.0,
    });
    write(tokenizer, scores.collect(), out)
}

/// Writes scores as they are.
pub fn write_scores(
    tokenizer: &Tokenizer,
    vocabulary: &Vocabulary,
    out: &mut NewKeys,
) -> Result<()> {
    tracing::warn!(
        "the tokenizer chooses the likeliest pieces of a whole text (Unigram); llama.cpp joins two \
         pieces at a time by the same scores, so that some texts become other tokens"
    );
    let vocab = tokenizer.value["model"]["vocab"].as_array();
    let vocab = vocab.into_iter().flatten();
    let mut scores: Vec<f64> = vocab
        .map(|pair| pair[1].as_f64().unwrap_or(NO_SCORE))
        .collect();
    scores.resize(vocabulary.tokens.len(), NO_SCORE);
    write(tokenizer, scores, out)
}

fn write(tokenizer: &Tokenizer, scores: Vec<f64>, out: &mut NewKeys) -> Result<()> {
    let prefix = has_prefix(tokenizer)?;
    out.text("tokenizer.ggml.model", "llama");
    out.text("tokenizer.ggml.pre", "default");
    out.put("tokenizer.ggml.scores", Stored::Floats(scores));
    out.flag("tokenizer.ggml.add_space_prefix", prefix);
    Ok(())
}

/// Whether a space is put before texts.
///
/// # Errors
/// If text is changed or split in another way than that spaces become [`SPACE`].
fn has_prefix(tokenizer: &Tokenizer) -> Result<bool> {
    let (mut prefix, mut replaced) = (false, false);
    for step in tokenizer.steps("normalizer", "normalizers") {
        match step["type"].as_str().unwrap_or_default() {
            "Prepend" if step["prepend"] == SPACE => prefix = true,
            "Replace" if step["pattern"]["String"] == " " && step["content"] == SPACE => {
                replaced = true;
            }
            // SentencePiece's own tables, which are programs' business.
            "Precompiled" => {}
            other => return Err(tokenizer.error(format!("its normalizer has the step `{other}`"))),
        }
    }
    for step in tokenizer.steps("pre_tokenizer", "pretokenizers") {
        match step["type"].as_str().unwrap_or_default() {
            "Metaspace" => {
                replaced = true;
                let scheme = step["prepend_scheme"].as_str();
                let old = step["add_prefix_space"] != Value::Bool(false);
                prefix |= scheme.map_or(old, |scheme| scheme != "never");
            }
            // Gemma's, which finds none: they have become others before.
            "Split" if step["pattern"]["String"] == " " => {}
            other => return Err(tokenizer.error(format!("it splits text by `{other}`"))),
        }
    }
    match replaced {
        true => Ok(prefix),
        false => Err(tokenizer.error(format!("spaces do not become `{SPACE}` in it"))),
    }
}
