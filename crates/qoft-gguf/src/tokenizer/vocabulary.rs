//! Tokens, what they are, and which of them have a role.

use qoft_scheme::Result;
use serde_json::{Map, Value, json};

use crate::file::Metadata;

/// Kinds of tokens in files.
pub mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

/// Roles, by the names of transformers and the keys of files.
const ROLES: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// The tokens of a file by their numbers.
pub struct Vocabulary<'a> {
    pub tokens: &'a [String],
    /// One for each token.
    pub kinds: Vec<i64>,
    roles: Vec<(&'static str, usize)>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens; `None` if the file has none.
    pub fn read(metadata: &'a Metadata) -> Result<Option<Self>> {
        let Some(tokens) = metadata.texts("tokenizer.ggml.tokens")? else {
            return Ok(None);
        };
        let key = "tokenizer.ggml.token_type";
        let kinds = metadata.integers(key)?;
        let kinds = kinds.unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        if kinds.len() != tokens.len() {
            let reason = format!("{} kinds of {} tokens", kinds.len(), tokens.len());
            return Err(metadata.error(key, reason));
        }
        let mut roles = Vec::new();
        for (name, key) in ROLES {
            match metadata.size(key)? {
                Some(id) if id < tokens.len() => roles.push((name, id)),
                Some(id) => {
                    let reason = format!("token {id} of {}", tokens.len());
                    return Err(metadata.error(key, reason));
                }
                None => {}
            }
        }
        Ok(Some(Self {
            tokens,
            kinds,
            roles,
        }))
    }

    /// Tokens with a role.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let roles = self.roles.iter();
        roles.map(|(name, id)| (*name, self.tokens[*id].as_str()))
    }

    /// The number of a token with a role.
    pub fn role(&self, name: &str) -> Option<usize> {
        let mut roles = self.roles.iter();
        roles.find(|(role, _)| *role == name).map(|(_, id)| *id)
    }

    /// The numbers by token.
    pub fn ids(&self) -> Map<String, Value> {
        let pairs = self.tokens.iter().zip(0usize..);
        pairs
            .map(|(token, id)| (token.clone(), id.into()))
            .collect()
    }

    /// Tokens that are matched whole before anything else.
    pub fn added(&self) -> Vec<Value> {
        let all = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = all.filter_map(|(id, (token, kind))| {
            let special = match *kind {
                kind::CONTROL | kind::UNKNOWN => true,
                kind::USER => false,
                _ => return None,
            };
            Some(json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": special,
            }))
        });
        added.collect()
    }

    /// Tokens that are put before and behind texts; `begins` is whether there is one before unless
    /// the file says otherwise.
    pub fn ends(&self, metadata: &Metadata, begins: bool) -> Result<Option<Value>> {
        let before = metadata
            .flag("tokenizer.ggml.add_bos_token")?
            .unwrap_or(begins);
        let behind = metadata
            .flag("tokenizer.ggml.add_eos_token")?
            .unwrap_or(false);
        let before = self.role("bos_token").filter(|_| before);
        let behind = self.role("eos_token").filter(|_| behind);
        if before.or(behind).is_none() {
            return Ok(None);
        }
        let special = |id: usize, sequence: usize| json!({"SpecialToken": {"id": self.tokens[id], "type_id": sequence}});
        let text = |name: &str, sequence: usize| {
            let text = json!({"Sequence": {"id": name, "type_id": sequence}});
            let before = before.map(|id| special(id, sequence));
            let behind = behind.map(|id| special(id, sequence));
            before
                .into_iter()
                .chain([text])
                .chain(behind)
                .collect::<Vec<_>>()
        };
        let mut tokens = Map::new();
        for id in before.into_iter().chain(behind) {
            let token = &self.tokens[id];
            tokens.insert(
                token.clone(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
        }
        let pair = [text("A", 0), text("B", 1)].concat();
        Ok(Some(json!({
            "type": "TemplateProcessing",
            "single": text("A", 0),
            "pair": pair,
            "special_tokens": tokens,
        })))
    }
}
