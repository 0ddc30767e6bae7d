//! The files around a tokenizer, in all the forms that transformers has written them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use super::TokenizerError;

/// The special tokens that can stand in a configuration under their own name.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The text of a file; `None` when there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, TokenizerError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A JSON file; null when there is no such file.
pub(super) fn read_json(path: &Path) -> Result<Value, TokenizerError> {
    let Some(text) = read_text(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|error| broken(path, &error))
}

/// The vocabulary and rules in `tokenizer.json`.
pub(super) fn read_vocabulary(
    path: &Path,
) -> Result<Option<tokenizers::Tokenizer>, TokenizerError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let mut vocabulary: tokenizers::Tokenizer = text
        .parse()
        .map_err(|error: tokenizers::Error| broken(path, error.as_ref()))?;
    // The file may hold the cutting and padding of the last use; transformers ignores them too.
    vocabulary
        .with_padding(None)
        .with_truncation(None)
        .map_err(|error| broken(path, error.as_ref()))?;
    Ok(Some(vocabulary))
}

/// The special tokens by name; the first of `configs` that has a token counts.
pub(super) fn special_tokens(configs: &[&Value]) -> Map<String, Value> {
    let mut tokens = Map::new();
    for name in SPECIAL_TOKENS {
        if let Some(token) = configs
            .iter()
            .find_map(|config| token_text(config.get(name)?))
        {
            tokens.insert(name.to_owned(), token.into());
        }
    }
    let several =
        |config: &&Value| Some(config.get("additional_special_tokens")?.as_array()?.clone());
    if let Some(several) = configs.iter().find_map(several) {
        let several: Vec<&str> = several.iter().filter_map(token_text).collect();
        tokens.insert("additional_special_tokens".to_owned(), several.into());
    }
    tokens
}

/// A token is written as its text or as an object with its text and how to match it.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The Jinja text of the chat template of `folder`, whose tokenizer configuration is `config`.
pub(super) fn chat_template(
    folder: &Path,
    config: &Value,
) -> Result<Option<String>, TokenizerError> {
    if let Some(template) = read_text(&folder.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    let template = match config.get("chat_template") {
        Some(Value::Array(templates)) => templates
            .iter()
            .find(|template| template.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|template| template.get("template")),
        template => template,
    };
    Ok(template.and_then(Value::as_str).map(str::to_owned))
}

/// The ids that end a text: those of the generation configuration, else of the model's.
pub(super) fn model_eos_ids(folder: &Path) -> Result<Vec<u32>, TokenizerError> {
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        let ids = match read_json(&path)?.get("eos_token_id") {
            None | Some(Value::Null) => continue,
            Some(Value::Array(ids)) => ids.iter().map(token_id).collect(),
            Some(id) => token_id(id).map(|id| vec![id]),
        };
        return ids.ok_or_else(|| TokenizerError::Broken {
            path,
            reason: "eos_token_id is neither a token id nor a list of them".to_owned(),
        });
    }
    Ok(Vec::new())
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn broken(path: &Path, error: &dyn std::error::Error) -> TokenizerError {
    TokenizerError::Broken {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn special_tokens_come_as_text_or_object_and_from_the_first_file_that_has_them() {
        let config = json!({
            "bos_token": {"content": "<s>", "lstrip": false},
            "eos_token": null,
            "additional_special_tokens": ["<a>", {"content": "<b>"}],
        });
        let map = json!({"bos_token": "<other>", "eos_token": "</s>"});
        assert_eq!(
            Value::from(special_tokens(&[&config, &map])),
            json!({
                "bos_token": "<s>",
                "eos_token": "</s>",
                "additional_special_tokens": ["<a>", "<b>"],
            })
        );
        assert_eq!(special_tokens(&[&Value::Null]), Map::new());
    }
}
