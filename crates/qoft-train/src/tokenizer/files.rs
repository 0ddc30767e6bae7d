//! The files around a tokenizer.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use qoft_core::stands_for_another;
use serde_json::Value;

use super::TokenizerError;

/// A JSON file; its value is null when there is no such file.
#[derive(Debug)]
pub(super) struct JsonFile {
    path: PathBuf,
    pub(super) value: Value,
}

impl JsonFile {
    pub(super) fn read(path: PathBuf) -> Result<Self, TokenizerError> {
        let value = match read_text(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| broken(&path, error))?,
            None => Value::Null,
        };
        Ok(Self { path, value })
    }

    /// The error that the file is broken.
    pub(super) fn broken(&self, reason: String) -> TokenizerError {
        broken(&self.path, reason)
    }
}

/// The files beside `tokenizer.json` that say what it is, and which more tokens there are.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) config: JsonFile,
    pub(super) special_tokens_map: JsonFile,
    pub(super) added_tokens: JsonFile,
    /// Of the model.
    pub(super) model: JsonFile,
}

impl Files {
    pub(super) fn read(folder: &Path) -> Result<Self, TokenizerError> {
        Ok(Self {
            config: JsonFile::read(folder.join("tokenizer_config.json"))?,
            special_tokens_map: JsonFile::read(folder.join("special_tokens_map.json"))?,
            added_tokens: JsonFile::read(folder.join("added_tokens.json"))?,
            model: JsonFile::read(folder.join("config.json"))?,
        })
    }
}

/// The text of a file; `None` when there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, TokenizerError> {
    match fs::read_to_string(path) {
        Ok(text) => match stands_for_another(text.as_bytes()) {
            None => Ok(Some(text)),
            Some(reason) => Err(broken(path, reason)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The ids that end a text: those of the generation configuration, else of the model's.
pub(super) fn model_eos_ids(folder: &Path, model: &JsonFile) -> Result<Vec<u32>, TokenizerError> {
    let generation = JsonFile::read(folder.join("generation_config.json"))?;
    for file in [&generation, model] {
        let ids = match file.value.get("eos_token_id") {
            None | Some(Value::Null) => continue,
            Some(Value::Array(ids)) => ids.iter().map(token_id).collect(),
            Some(id) => token_id(id).map(|id| vec![id]),
        };
        return ids.ok_or_else(|| {
            file.broken("eos_token_id is neither a token id nor a list of them".to_owned())
        });
    }
    Ok(Vec::new())
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

pub(super) fn broken(path: &Path, reason: impl ToString) -> TokenizerError {
    TokenizerError::Broken {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
