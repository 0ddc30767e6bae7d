//! The chat templates that lie in a folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::TokenizerError;
use super::files::{JsonFile, read_text};

/// The file of the template for all conversations, or for those without a name.
const FILE: &str = "chat_template.jinja";
/// The folder of those with names.
const FOLDER: &str = "additional_chat_templates";
/// The name of the first.
const DEFAULT: &str = "default";

/// The chat templates of a model or an adapter, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChatTemplates {
    /// There is none.
    None,
    /// One for all conversations.
    One(String),
    /// Names and texts.
    Several(Vec<(String, String)>),
}

impl ChatTemplates {
    /// The templates that lie in a folder; see [`Tokenizer::chat_template`](super::Tokenizer::chat_template).
    ///
    /// # Errors
    /// [`TokenizerError::Io`] and [`TokenizerError::Broken`] for files that cannot be used.
    pub fn of_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let config = JsonFile::read(folder.join("tokenizer_config.json"))?;
        chat_templates(folder, &config)
    }

    /// The text for conversations without tools.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::One(source) => Some(source),
            Self::Several(_) => self.named(DEFAULT),
        }
    }

    /// The text for conversations with tools.
    #[must_use]
    pub fn for_tools(&self) -> Option<&str> {
        self.named("tool_use").or_else(|| self.plain())
    }

    /// The text of this name, if there are several.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&str> {
        let Self::Several(templates) = self else {
            return None;
        };
        let found = templates.iter().find(|(known, _)| known == name);
        found.map(|(_, source)| source.as_str())
    }

    /// Writes them into a folder, in place of those that are there.
    ///
    /// # Errors
    /// [`TokenizerError::Io`] if the file system refuses.
    pub fn write(&self, folder: &Path) -> Result<(), TokenizerError> {
        let (file, others) = (folder.join(FILE), folder.join(FOLDER));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TokenizerError::Io { path, source }
        };
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(fs::remove_file(&file)).map_err(io(&file))?;
        gone(fs::remove_dir_all(&others)).map_err(io(&others))?;
        if let Some(source) = self.plain() {
            fs::write(&file, source).map_err(io(&file))?;
        }
        let Self::Several(templates) = self else {
            return Ok(());
        };
        fs::create_dir_all(&others).map_err(io(&others))?;
        for (name, source) in templates.iter().filter(|(name, _)| name != DEFAULT) {
            let file = others.join(format!("{name}.jinja"));
            fs::write(&file, source).map_err(io(&file))?;
        }
        Ok(())
    }
}

/// The chat templates of `folder`, whose tokenizer configuration is `config`. The files
/// `chat_template.jinja` and `additional_chat_templates/NAME.jinja` go before the configuration.
pub(super) fn chat_templates(
    folder: &Path,
    config: &JsonFile,
) -> Result<ChatTemplates, TokenizerError> {
    let default = read_text(&folder.join(FILE))?;
    let mut named = additional_templates(&folder.join(FOLDER))?;
    match default {
        Some(template) if named.is_empty() => return Ok(ChatTemplates::One(template)),
        Some(template) => named.insert(0, (DEFAULT.to_owned(), template)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let several = [("default", "a"), ("tool_use", "b")];
        let several = several.map(|(name, text)| (name.to_owned(), text.to_owned()));
        for templates in [
            ChatTemplates::Several(several.to_vec()),
            ChatTemplates::One("c".to_owned()),
            ChatTemplates::None,
        ] {
            templates.write(folder.path()).unwrap();
            assert_eq!(ChatTemplates::of_folder(folder.path()).unwrap(), templates);
        }
    }
}
