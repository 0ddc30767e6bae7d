//! The tokens that files beside `tokenizer.json` name or add, as transformers reads them.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TokenizerError;
use super::files::Files;

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
    pub(super) named: Vec<(String, AddedToken)>,
    /// Further tokens, in the order in which they are added.
    pub(super) added: Vec<AddedToken>,
    /// Special tokens without a name, which are added last.
    extra: Vec<AddedToken>,
}

impl Tokens {
    /// Reads the tokens of `tokenizer_config.json`, and those of `special_tokens_map.json` and
    /// `added_tokens.json` where the first file has no `added_tokens_decoder`.
    pub(super) fn read(files: &Files) -> Result<Self, TokenizerError> {
        let mut tokens = Self::default();
        let config = files.config.value.as_object().cloned().unwrap_or_default();
        tokens.read_named(&config);
        tokens.extra = extra_tokens(&config);
        if let Some(decoder) = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object)
        {
            let mut added = Vec::new();
            for (id, token) in decoder {
                let broken = || {
                    files
                        .config
                        .broken(format!("added_tokens_decoder: bad token {id}"))
                };
                let id: u32 = id.parse().map_err(|_| broken())?;
                added.push((id, token_of(token).ok_or_else(broken)?));
            }
            added.sort_by_key(|(id, _)| *id);
            tokens.added = added.into_iter().map(|(_, token)| token).collect();
            return Ok(tokens);
        }
        let map = files
            .special_tokens_map
            .value
            .as_object()
            .cloned()
            .unwrap_or_default();
        tokens.read_named(&map);
        for token in extra_tokens(&map) {
            if !tokens.extra.contains(&token) {
                tokens.extra.push(token);
            }
        }
        let added = files
            .added_tokens
            .value
            .as_object()
            .cloned()
            .unwrap_or_default();
        let mut numbered = Vec::new();
        for (content, id) in added {
            let id = id.as_u64().ok_or_else(|| {
                files
                    .added_tokens
                    .broken(format!("the token '{content}' has no id"))
            })?;
            numbered.push((id, AddedToken::from(&*content, tokens.is_special(&content))));
        }
        numbered.sort_by_key(|(id, _)| *id);
        tokens.added = numbered.into_iter().map(|(_, token)| token).collect();
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
        let is_known = |token: &AddedToken| known.values().any(|other| other == token);
        let mut missing: Vec<AddedToken> = self
            .added
            .iter()
            .filter(|token| !is_known(token))
            .cloned()
            .collect();
        let named = self.named.iter().map(|(_, token)| token);
        for token in named.chain(&self.extra) {
            let is_added = |other: &AddedToken| other.content == token.content;
            if !known.values().any(is_added) && !missing.iter().any(is_added) {
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

    fn is_special(&self, content: &str) -> bool {
        let named = self.named.iter().map(|(_, token)| token);
        named
            .chain(&self.extra)
            .any(|token| token.content == content)
    }

    /// Reads the special tokens with names; later files replace the tokens of earlier ones.
    fn read_named(&mut self, config: &Map<String, Value>) {
        let own = config.iter().filter(|(name, _)| name.ends_with("_token"));
        let extra = config
            .get("extra_special_tokens")
            .and_then(Value::as_object);
        for (name, token) in own.chain(extra.into_iter().flatten()) {
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

/// The special tokens without names.
fn extra_tokens(config: &Map<String, Value>) -> Vec<AddedToken> {
    let lists = ["extra_special_tokens", "additional_special_tokens"];
    let list = lists.iter().find_map(|name| {
        let list = config.get(*name)?.as_array()?;
        (!list.is_empty()).then_some(list)
    });
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
