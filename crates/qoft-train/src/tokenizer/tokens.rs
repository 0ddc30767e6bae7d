//! The tokens that files beside `tokenizer.json` name or add, as transformers reads them.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TokenizerError;
use super::files::{Files, JsonFile};

/// The special tokens that every tokenizer can have, by the names of their settings.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// What the files say about special and added tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The special tokens that have a name, such as `eos_token`.
    named: Vec<(String, AddedToken)>,
    /// Further tokens with their ids, by which they are ordered.
    added: Vec<(u64, AddedToken)>,
    /// Whether a token of `tokenizer.json` takes the place of an added one with its id.
    gives_way: bool,
    /// Special tokens without a name, which are added last.
    extra: Vec<AddedToken>,
}

impl Tokens {
    /// Reads the tokens of `tokenizer_config.json`, and those of `special_tokens_map.json` and
    /// `added_tokens.json` where the first file has no `added_tokens_decoder`.
    pub(super) fn read(files: &Files) -> Result<Self, TokenizerError> {
        let mut tokens = Self::default();
        let object = |file: &JsonFile| file.value.as_object().cloned().unwrap_or_default();
        let config = object(&files.config);
        tokens.read_named(&config, true);
        let (extra, has_extra) = extra_tokens(&config);
        tokens.extra = extra;
        if let Some(decoder) = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object)
        {
            for (id, token) in decoder {
                let broken = || {
                    files
                        .config
                        .broken(format!("added_tokens_decoder: bad token {id}"))
                };
                let id: u64 = id.parse().map_err(|_| broken())?;
                tokens.added.push((id, token_of(token).ok_or_else(broken)?));
            }
            tokens.added.sort_by_key(|(id, _)| *id);
            return Ok(tokens);
        }
        let map = object(&files.special_tokens_map);
        tokens.read_named(&map, false);
        for token in listed(&map, "extra_special_tokens") {
            if !tokens.extra.contains(&token) {
                tokens.extra.push(token);
            }
        }
        tokens.gives_way = true;
        for (content, id) in object(&files.added_tokens) {
            let broken = || {
                let reason = format!("the token '{content}' has no id");
                files.added_tokens.broken(reason)
            };
            let id = id.as_u64().ok_or_else(broken)?;
            let token = AddedToken::from(&*content, tokens.is_special(&content));
            // A special token is matched as the added one, even if that one gives way.
            let same = tokens
                .named
                .iter_mut()
                .filter(|(name, named)| NAMES.contains(&&**name) && named.content == token.content);
            same.for_each(|(_, named)| *named = token.clone());
            tokens.added.retain(|(other, _)| *other != id);
            tokens.added.push((id, token));
        }
        tokens.added.sort_by_key(|(id, _)| *id);
        if !has_extra && !map.contains_key("extra_special_tokens") {
            tokens.extra = listed(&map, "additional_special_tokens");
        }
        Ok(tokens)
    }

    /// The text of the special token `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name);
        found.map(|(_, token)| token.content.as_str())
    }

    /// Names `text` as the token `name`, unless there is one.
    pub(super) fn set_default(&mut self, name: &str, text: &str) {
        if self.text(name).is_none() {
            self.named
                .push((name.to_owned(), AddedToken::from(text, true)));
        }
    }

    /// The special tokens by name, as templates see them.
    pub(super) fn variables(&self) -> Map<String, Value> {
        let named = self.named.iter();
        named
            .map(|(name, token)| (name.clone(), token.content.as_str().into()))
            .collect()
    }

    /// Adds what `vocabulary` lacks, in transformers' order.
    pub(super) fn add_to(&self, vocabulary: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
        let known = vocabulary.get_added_tokens_decoder();
        let has_id = |id: u64| u32::try_from(id).is_ok_and(|id| known.contains_key(&id));
        let added = self.added.iter();
        let mut missing: Vec<AddedToken> = added
            .filter(|(id, _)| !(self.gives_way && has_id(*id)))
            .map(|(_, token)| token.clone())
            .filter(|token| !known.values().any(|other| other == token))
            .collect();
        let contents = known.values().chain(&missing);
        let contents: HashSet<String> = contents.map(|token| token.content.clone()).collect();
        let named = self.named.iter().map(|(_, token)| token);
        for token in named.chain(&self.extra) {
            if !contents.contains(&token.content) && !missing.contains(token) {
                missing.push(token.clone());
            }
        }
        for token in &mut missing {
            let is_named = self
                .named
                .iter()
                .any(|(_, other)| other.content == token.content);
            token.special |= is_named;
        }
        vocabulary.add_tokens(missing)?;
        Ok(())
    }

    /// Whether `content` is a common special token, or one without a name.
    fn is_special(&self, content: &str) -> bool {
        let common = self.named.iter();
        let common = common.filter(|(name, _)| NAMES.contains(&&**name));
        common
            .map(|(_, token)| token)
            .chain(&self.extra)
            .any(|token| token.content == content)
    }

    /// Reads the special tokens with names; later files replace the tokens of earlier ones. In the
    /// configuration a token of the model's own must be written as a text or say that it is a token.
    fn read_named(&mut self, config: &Map<String, Value>, is_configuration: bool) {
        let is_token = |(name, token): &(&String, &Value)| {
            let is_told = token.get("__type").and_then(Value::as_str) == Some("AddedToken");
            !is_configuration || !token.is_object() || is_told || NAMES.contains(&&***name)
        };
        let own = config.iter().filter(|(name, _)| name.ends_with("_token"));
        let own = own.filter(is_token);
        let of_model = |name: &str| {
            config
                .get(name)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
        };
        let of_model =
            of_model("model_specific_special_tokens").chain(of_model("extra_special_tokens"));
        for (name, token) in own.chain(of_model) {
            let Some(token) = special_token(token) else {
                continue;
            };
            match self.named.iter_mut().find(|(known, _)| known == name) {
                Some((_, place)) => *place = token,
                None => self.named.push((name.clone(), token)),
            }
        }
        // transformers adds the common ones first, in this order.
        let place = |name: &String| NAMES.iter().position(|known| known == name);
        self.named
            .sort_by_key(|(name, _)| place(name).unwrap_or(NAMES.len()));
    }
}

/// The special tokens without names in the configuration, and whether it has a list of them.
fn extra_tokens(config: &Map<String, Value>) -> (Vec<AddedToken>, bool) {
    let extra = listed(config, "extra_special_tokens");
    if !extra.is_empty() {
        return (extra, true);
    }
    let names = ["extra_special_tokens", "additional_special_tokens"];
    let has_list = names
        .iter()
        .any(|name| config.get(*name).is_some_and(Value::is_array));
    (listed(config, "additional_special_tokens"), has_list)
}

fn listed(config: &Map<String, Value>, name: &str) -> Vec<AddedToken> {
    let list = config.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(special_token)
        .collect()
}

/// A token that is written as its text or as an object with its text and how to match it.
fn token_of(value: &Value) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, false));
    }
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let is_special = flag("special").unwrap_or(false);
    Some(
        AddedToken::from(value.get("content")?.as_str()?, is_special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!is_special)),
    )
}

fn special_token(value: &Value) -> Option<AddedToken> {
    let mut token = token_of(value)?;
    token.special = true;
    let is_told = value.get("normalized").is_some_and(Value::is_boolean);
    token.normalized = token.normalized && is_told;
    Some(token)
}
