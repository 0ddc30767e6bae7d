//! Tokens with a role, and the chat template.

use std::path::Path;

use qoft_scheme::{Error, Keys, Result};
use serde_json::Value;

use super::vocabulary::Vocabulary;
use super::{Tokenizer, keys};
use crate::write::keys::NewKeys;

/// Roles, by transformers' names for the token and its number, and by the keys of files.
const ROLES: [(&str, &str, &str); 4] = [
    ("bos_token", "bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "eos_token_id", "tokenizer.ggml.eos_token_id"),
    (
        "unk_token",
        "unk_token_id",
        "tokenizer.ggml.unknown_token_id",
    ),
    (
        "pad_token",
        "pad_token_id",
        "tokenizer.ggml.padding_token_id",
    ),
];

/// Writes the tokens with a role, those that are put around texts, and the chat template.
pub fn write(
    tokenizer: &Tokenizer,
    vocabulary: &Vocabulary,
    config: &Keys,
    folder: &Path,
    out: &mut NewKeys,
) -> Result<()> {
    let settings = keys(folder, "tokenizer_config.json")?;
    let generation = keys(folder, "generation_config.json")?;
    let mut roles = Vec::new();
    for (name, id_name, key) in ROLES {
        let named = settings.value(name).and_then(text_of);
        let named = named.and_then(|token| vocabulary.number(token));
        let numbered = || config.value(id_name).and_then(first_id);
        let id = named.or_else(numbered);
        if let Some(id) = id.filter(|id| *id < vocabulary.tokens.len()) {
            out.size(key, id);
            roles.push((name, id));
        }
    }
    let role = |name: &str| {
        roles
            .iter()
            .find(|(role, _)| *role == name)
            .map(|(_, id)| *id)
    };
    let ends = [&generation, config]
        .into_iter()
        .filter_map(|keys| keys.value("eos_token_id"));
    let ends = ends
        .flat_map(ids)
        .filter(|id| *id < vocabulary.tokens.len());
    // Where turns end with another token than texts.
    if let Some(turn) = ends.into_iter().find(|id| Some(*id) != role("eos_token")) {
        out.size("tokenizer.ggml.eot_token_id", turn);
    }
    let around = around(tokenizer)?;
    for (place, name, key) in [
        (around[0], "bos_token", "tokenizer.ggml.add_bos_token"),
        (around[1], "eos_token", "tokenizer.ggml.add_eos_token"),
    ] {
        let token = place.map(|token| vocabulary.number(token));
        if let Some(id) = token.filter(|id| *id != role(name) || id.is_none()) {
            let reason = format!("it puts token {id:?} around texts, which is not its {name}");
            return Err(tokenizer.error(reason));
        }
        out.flag(key, token.is_some());
    }
    if let Some(template) = chat_template(&settings, folder)? {
        out.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// A token, which may be an object with its properties.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// One number or several.
fn ids(value: &Value) -> Vec<usize> {
    let one = |value: &Value| value.as_u64().and_then(|id| usize::try_from(id).ok());
    match value {
        Value::Array(all) => all.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

fn first_id(value: &Value) -> Option<usize> {
    ids(value).first().copied()
}

/// The tokens that are put before and behind texts.
fn around<'a>(tokenizer: &'a Tokenizer) -> Result<[Option<&'a str>; 2]> {
    let mut around = [None; 2];
    for step in tokenizer.steps("post_processor", "processors") {
        match step["type"].as_str().unwrap_or_default() {
            "ByteLevel" => {}
            "TemplateProcessing" => {
                let parts = step["single"].as_array();
                let parts: Vec<&Value> = parts.into_iter().flatten().collect();
                let is_text = |part: &&Value| part["Sequence"].is_object();
                let Some(at) = parts.iter().position(is_text) else {
                    return Err(tokenizer.damaged("its template has no place for the text"));
                };
                let token = |part: Option<&&'a Value>| {
                    part.and_then(|part| part["SpecialToken"]["id"].as_str())
                };
                if at > 1 || parts.len() > at + 2 {
                    return Err(tokenizer.error("it puts several tokens around texts"));
                }
                let before = at.checked_sub(1).and_then(|at| parts.get(at));
                around = [token(before), token(parts.get(at + 1))];
            }
            other => {
                return Err(tokenizer.error(format!("its post-processor has the step `{other}`")));
            }
        }
    }
    Ok(around)
}

/// The template of chats: that of a file of its own, or that among the settings.
fn chat_template(settings: &Keys, folder: &Path) -> Result<Option<String>> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return std::fs::read_to_string(&path)
            .map(Some)
            .map_err(Error::io(&path));
    }
    let file = keys(folder, "chat_template.json")?;
    let found = [&file, settings]
        .into_iter()
        .find_map(|keys| keys.value("chat_template"));
    Ok(match found {
        Some(Value::Array(several)) => {
            let mut several = several.iter();
            let default = several.find(|named| named["name"] == "default");
            default
                .and_then(|named| named["template"].as_str())
                .map(str::to_owned)
        }
        Some(value) => value.as_str().map(str::to_owned),
        None => None,
    })
}
