//! Tokens by their numbers, and what they are.

use std::collections::HashMap;

use qoft_scheme::Result;
use serde_json::Value;

use super::Tokenizer;
use crate::tokenizer::kind;

/// A token for each row of the embeddings.
pub struct Vocabulary {
    /// By number. Rows without a token have one that stands for nothing.
    pub tokens: Vec<String>,
    /// What each is.
    pub kinds: Vec<i64>,
    numbers: HashMap<String, usize>,
}

impl Vocabulary {
    /// Reads the tokens of a tokenizer, for so many rows.
    ///
    /// # Errors
    /// If a token has no row, or two have the same number.
    pub fn read(tokenizer: &Tokenizer, rows: usize) -> Result<Self> {
        let model = &tokenizer.value["model"];
        let mut all: Vec<Option<String>> = vec![None; rows];
        let mut numbers = HashMap::new();
        let mut put = |token: &str, number: Option<u64>| {
            let number = number.and_then(|number| usize::try_from(number).ok());
            let Some(number) = number.filter(|number| *number < rows) else {
                let reason = format!("token `{token}` has no row: the embeddings have {rows}");
                return Err(tokenizer.damaged(reason));
            };
            all[number] = Some(token.to_owned());
            numbers.insert(token.to_owned(), number);
            Ok(())
        };
        match &model["vocab"] {
            Value::Object(vocab) => {
                for (token, number) in vocab {
                    put(token, number.as_u64())?;
                }
            }
            // With scores: the place is the number.
            Value::Array(vocab) => {
                for (number, pair) in vocab.iter().enumerate() {
                    let token = pair[0].as_str();
                    let token = token.ok_or_else(|| tokenizer.damaged("`vocab`: no text"))?;
                    put(token, Some(number as u64))?;
                }
            }
            _ => return Err(tokenizer.damaged("`model.vocab` is missing")),
        }
        let added = tokenizer.value["added_tokens"].as_array();
        let added: Vec<(&str, bool)> = added
            .into_iter()
            .flatten()
            .map(|token| {
                let content = token["content"].as_str();
                let content =
                    content.ok_or_else(|| tokenizer.damaged("an added token is no text"))?;
                put(content, token["id"].as_u64())?;
                Ok((content, token["special"] == Value::Bool(true)))
            })
            .collect::<Result<_>>()?;
        let bytes = model["byte_fallback"] == Value::Bool(true);
        let kinds = all.iter().map(|token| match token {
            None => kind::UNUSED,
            Some(token) if bytes && is_byte(token) => kind::BYTE,
            Some(_) => kind::NORMAL,
        });
        let mut kinds: Vec<i64> = kinds.collect();
        for (token, special) in added {
            kinds[numbers[token]] = match special || looks_special(token) {
                true => kind::CONTROL,
                false => kind::USER,
            };
        }
        let unknown = match &model["unk_token"] {
            Value::String(token) => numbers.get(token).copied(),
            _ => model["unk_id"]
                .as_u64()
                .and_then(|id| usize::try_from(id).ok()),
        };
        if let Some(kind) = unknown.and_then(|id| kinds.get_mut(id)) {
            *kind = kind::UNKNOWN;
        }
        let tokens = all.into_iter().enumerate();
        let tokens = tokens.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
        Ok(Self {
            tokens: tokens.collect(),
            kinds,
            numbers,
        })
    }

    /// The number of a token.
    pub fn number(&self, token: &str) -> Option<usize> {
        self.numbers.get(token).copied()
    }
}

/// Whether a token stands for one byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Whether an added token steers a model, though its tokenizer does not say so: some are published
/// that way, and llama.cpp's converter judges them by the same forms.
fn looks_special(token: &str) -> bool {
    let between = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    between("<|", "|>")
        || between("<\u{ff5c}", "\u{ff5c}>")
        || between("<unused", ">")
        || matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
}
