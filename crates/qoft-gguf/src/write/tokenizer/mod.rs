//! The tokenizer of a folder, as keys of a file.

mod byte_level;
mod pieces;
mod special;
mod vocabulary;

use std::path::Path;

use qoft_scheme::{Error, Keys, Result, read_json};
use serde_json::Value;

use super::config::Config;
use super::keys::NewKeys;
use crate::file::Value as Stored;
use vocabulary::Vocabulary;

/// The files of tokenizers that are not read; one of transformers' fast tokenizers is.
const OTHERS: [&str; 4] = ["tokenizer.model", "vocab.json", "tekken.json", "merges.txt"];

/// Writes the tokenizer and the chat template of `folder` for a model with so many rows of
/// embeddings. A folder without a tokenizer is a model without one.
///
/// # Errors
/// If a file is damaged, or the tokenizer is one that files of this format cannot say.
pub fn write(config: &Config, folder: &Path, rows: usize, out: &mut NewKeys) -> Result<()> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        if let Some(other) = OTHERS.iter().find(|name| folder.join(name).is_file()) {
            let reason = format!(
                "is missing; `{other}` alone is not read: write one with transformers, \
                 `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
            );
            return Err(Error::file(path, reason));
        }
        tracing::warn!("the model has no tokenizer, and the file gets none");
        out.text("tokenizer.ggml.model", "none");
        return Ok(());
    }
    let tokenizer = Tokenizer {
        path: &path,
        value: read_json(&path)?,
    };
    let vocabulary = Vocabulary::read(&tokenizer, rows)?;
    let model = &tokenizer.value["model"];
    match model["type"].as_str().unwrap_or("BPE") {
        "BPE" if model["byte_fallback"] == Value::Bool(true) => {
            pieces::write_pairs(&tokenizer, &vocabulary, out)?;
        }
        "BPE" => byte_level::write(&tokenizer, out)?,
        "Unigram" => pieces::write_scores(&tokenizer, &vocabulary, out)?,
        other => return Err(tokenizer.error(format!("its model is of the type `{other}`"))),
    }
    out.put(
        "tokenizer.ggml.tokens",
        Stored::Strings(vocabulary.tokens.clone()),
    );
    out.put(
        "tokenizer.ggml.token_type",
        Stored::Signeds(vocabulary.kinds.clone()),
    );
    special::write(&tokenizer, &vocabulary, &config.keys, folder, out)
}

/// A `tokenizer.json`.
pub struct Tokenizer<'a> {
    path: &'a Path,
    /// Its content.
    pub value: Value,
}

impl Tokenizer<'_> {
    /// What files of this format cannot say.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        let reason = format!(
            "{what}, which is not written to GGUF files; `qoft merge --dequantize` writes a folder \
             that llama.cpp's convert_hf_to_gguf.py may know"
        );
        Error::file(self.path, reason)
    }

    /// What makes no sense in it.
    pub fn damaged(&self, reason: impl ToString) -> Error {
        Error::file(self.path, reason)
    }

    /// The parts of one of its steps, which may be a sequence of others in the list `parts`.
    pub fn steps(&self, step: &str, parts: &str) -> Vec<&Value> {
        let step = &self.value[step];
        match step["type"].as_str() {
            None => Vec::new(),
            Some("Sequence") => step[parts].as_array().into_iter().flatten().collect(),
            Some(_) => vec![step],
        }
    }

    /// Merges of pairs, in their order.
    pub fn merges(&self) -> Result<Vec<(&str, &str)>> {
        let merges = self.value["model"]["merges"].as_array();
        let merges = merges.into_iter().flatten().map(|merge| {
            let pair = match merge {
                Value::String(text) => text.split_once(' '),
                Value::Array(pair) => match &pair[..] {
                    [Value::String(left), Value::String(right)] => Some((&**left, &**right)),
                    _ => None,
                },
                _ => None,
            };
            pair.ok_or_else(|| self.damaged(format!("`merges`: {merge} is no pair")))
        });
        merges.collect()
    }
}

/// The keys of a JSON file of a folder; none of them if it is not there.
fn keys(folder: &Path, name: &str) -> Result<Keys> {
    let path = folder.join(name);
    let value = match path.is_file() {
        true => read_json(&path)?,
        false => Value::Null,
    };
    Ok(Keys::new(name, value))
}
