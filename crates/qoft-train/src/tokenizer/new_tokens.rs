//! Tokens that a tokenizer gets beside those that it has.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use qoft_core::write_file;

use super::files::{JsonFile, broken};
use super::{Tokenizer, TokenizerError, VOCABULARY};

/// The file that says what kind of tokenizer it is.
const CONFIG: &str = "tokenizer_config.json";

/// A token that a tokenizer is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewToken {
    /// Its text.
    pub content: String,
    /// Whether it is left out when tokens become text again, as the tokens of a chat template are.
    pub special: bool,
}

impl NewToken {
    /// A token with this text.
    pub fn new(content: impl Into<String>, special: bool) -> Self {
        Self {
            content: content.into(),
            special,
        }
    }
}

/// What became of new tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokensAdded {
    /// Those that were added, in their order.
    pub added: Vec<String>,
    /// Those that the vocabulary had already, or that were given twice.
    pub known: Vec<String>,
    /// How many rows a table needs for all ids of the added ones; 0 if there are none.
    pub rows: usize,
}

/// Adds tokens to the tokenizer in `folder`, as transformers' `add_tokens` and `save_pretrained` do: the new
/// ones follow the last id in the order given. `tokenizer.json` is written anew, with all tokens that
/// other files add to it, and so is the list in `tokenizer_config.json` where there is one.
///
/// # Errors
/// If the folder has no `tokenizer.json`, or its files cannot be used or written.
pub fn add_tokens(folder: &Path, tokens: &[NewToken]) -> Result<TokensAdded, TokenizerError> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    let mut vocabulary = tokenizer.vocabulary()?.clone();
    let mut result = TokensAdded::default();
    let (mut seen, mut new) = (HashSet::new(), Vec::new());
    for token in tokens {
        let content = &token.content;
        if vocabulary.token_to_id(content).is_some() || !seen.insert(content) {
            result.known.push(content.clone());
        } else {
            result.added.push(content.clone());
            new.push(AddedToken::from(content.as_str(), token.special));
        }
    }
    if new.is_empty() {
        return Ok(result);
    }
    tokenizer.run(|| vocabulary.add_tokens(new))?;
    write(folder, &vocabulary)?;
    // What was written has to be what was made.
    let written = Tokenizer::from_dir(folder)?;
    let path = folder.join(VOCABULARY);
    for content in &result.added {
        let id = vocabulary.token_to_id(content);
        if id.is_none() || written.vocabulary()?.token_to_id(content) != id {
            let reason = format!("the token {content:?} cannot be added to this tokenizer");
            return Err(broken(&path, reason));
        }
        result.rows = result.rows.max(id.map_or(0, |id| id as usize + 1));
    }
    Ok(result)
}

/// Writes the added tokens of a vocabulary into the files of its folder.
fn write(folder: &Path, vocabulary: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    let added = vocabulary.get_added_tokens_decoder();
    let mut added: Vec<(u32, AddedToken)> = added.into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    let path = folder.join(VOCABULARY);
    let mut file = JsonFile::read(path.clone())?.value;
    let with_id = |(id, token): &(u32, AddedToken)| {
        let mut entry = Map::from_iter([("id".to_owned(), json!(id))]);
        entry.extend(described(token));
        Value::Object(entry)
    };
    file["added_tokens"] = added.iter().map(with_id).collect();
    save(&path, &file)?;
    let path = folder.join(CONFIG);
    let mut config = JsonFile::read(path.clone())?.value;
    if let Some(Value::Object(decoder)) = config.get_mut("added_tokens_decoder") {
        for (id, token) in &added {
            decoder.insert(id.to_string(), described(token).into());
        }
        save(&path, &config)?;
    }
    Ok(())
}

/// A token as files have it.
fn described(token: &AddedToken) -> Map<String, Value> {
    let entries = [
        ("content", json!(token.content)),
        ("single_word", json!(token.single_word)),
        ("lstrip", json!(token.lstrip)),
        ("rstrip", json!(token.rstrip)),
        ("normalized", json!(token.normalized)),
        ("special", json!(token.special)),
    ];
    let entries = entries.map(|(key, value)| (key.to_owned(), value));
    Map::from_iter(entries)
}

fn save(path: &Path, value: &Value) -> Result<(), TokenizerError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| broken(path, error))?;
    text.push('\n');
    write_file(path, text.as_bytes()).map_err(|error| broken(path, error))
}
