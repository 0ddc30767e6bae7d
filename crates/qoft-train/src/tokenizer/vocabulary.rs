//! The vocabulary of a folder, with the tokens that its other files add.

use std::path::Path;

use serde_json::Value;
use tokenizers::PreTokenizerWrapper;

use super::TokenizerError;
use super::check::Parts;
use super::classes::BYTE_LEVEL_CLASSES;
use super::files::{broken, read_text};
use super::isolated::isolated;
use super::tokens::Tokens;

/// The vocabulary and rules in `tokenizer.json`, with the `tokens` of the other files and
/// what the tokenizer's configuration says about its use.
pub(super) fn read_vocabulary(
    path: &Path,
    tokens: &mut Tokens,
    config: &Value,
) -> Result<Option<tokenizers::Tokenizer>, TokenizerError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let parts: Parts = serde_json::from_str(&text).map_err(|error| broken(path, error))?;
    parts.check().map_err(|reason| broken(path, reason))?;
    if let Some(token) = parts.padding.get("pad_token").and_then(Value::as_str) {
        tokens.set_default("pad_token", token);
    }
    let read = || -> tokenizers::Result<tokenizers::Tokenizer> {
        let mut vocabulary: tokenizers::Tokenizer = text.parse()?;
        // The file may hold the cutting and padding of the last use; transformers ignores them.
        vocabulary.with_padding(None).with_truncation(None)?;
        tokens.add_to(&mut vocabulary)?;
        if let Some(class) = config.get("tokenizer_class").and_then(Value::as_str)
            && BYTE_LEVEL_CLASSES.contains(&class.trim_end_matches("Fast"))
            && let Some(PreTokenizerWrapper::ByteLevel(part)) = vocabulary.get_pre_tokenizer()
        {
            let is_prefixed = config.get("add_prefix_space").and_then(Value::as_bool);
            let part = part.add_prefix_space(is_prefixed.unwrap_or(false));
            vocabulary.with_pre_tokenizer(Some(part));
        }
        let is_split = config.get("split_special_tokens").and_then(Value::as_bool);
        vocabulary.set_encode_special_tokens(is_split.unwrap_or(false));
        Ok(vocabulary)
    };
    let vocabulary = isolated(read).map_err(|panic| broken(path, panic))?;
    Ok(Some(vocabulary.map_err(|error| broken(path, error))?))
}
