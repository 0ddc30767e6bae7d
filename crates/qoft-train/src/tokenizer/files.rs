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

/// Where the chat templates of a model come from.
#[derive(Debug)]
pub(super) enum ChatTemplates {
    None,
    One(String),
    /// Names and texts.
    Several(Vec<(String, String)>),
}

/// The chat templates of `folder`, whose tokenizer configuration is `config`. The files
/// `chat_template.jinja` and `additional_chat_templates/NAME.jinja` go before the configuration.
pub(super) fn chat_templates(
    folder: &Path,
    config: &JsonFile,
) -> Result<ChatTemplates, TokenizerError> {
    let default = read_text(&folder.join("chat_template.jinja"))?;
    let mut named = additional_templates(&folder.join("additional_chat_templates"))?;
    match default {
        Some(template) if named.is_empty() => return Ok(ChatTemplates::One(template)),
        Some(template) => named.insert(0, ("default".to_owned(), template)),
        None => {}
    }
    if !named.is_empty() {
        return Ok(ChatTemplates::Several(named));
    }
    let templates = config.value.get("chat_template");
    let text = |template: &Value, name: &str| match template.as_str() {
        Some(template) => Ok((name.to_owned(), template.to_owned())),
        None => Err(config.broken(format!("the chat template '{name}' is no text"))),
    };
    match templates {
        None | Some(Value::Null) => Ok(ChatTemplates::None),
        Some(Value::String(template)) => Ok(ChatTemplates::One(template.clone())),
        Some(Value::Object(templates)) => {
            let named = templates
                .iter()
                .map(|(name, template)| text(template, name));
            Ok(ChatTemplates::Several(named.collect::<Result<_, _>>()?))
        }
        Some(Value::Array(templates)) => {
            let named = templates.iter().map(|entry| {
                let name = entry.get("name").and_then(Value::as_str);
                let name = name.ok_or_else(|| {
                    config.broken("an entry of chat_template has no name".to_owned())
                })?;
                text(entry.get("template").unwrap_or(&Value::Null), name)
            });
            Ok(ChatTemplates::Several(named.collect::<Result<_, _>>()?))
        }
        Some(_) => Err(config.broken("chat_template is neither a text nor a list".to_owned())),
    }
}

/// The templates in a folder of files, by their names.
fn additional_templates(folder: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let io = |source| TokenizerError::Io {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut templates = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let is_template = path.extension().is_some_and(|ending| ending == "jinja");
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (true, Some(name)) = (is_template, name)
            && let Some(text) = read_text(&path)?
        {
            templates.push((name.to_owned(), text));
        }
    }
    templates.sort();
    Ok(templates)
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
