//! The vocabulary of a folder, with the tokens that its other files add.

use std::path::Path;

use serde_json::Value;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};
use tracing::warn;

use super::TokenizerError;
use super::check::Parts;
use super::classes;
use super::files::{broken, read_text};
use super::tokens::Tokens;
use crate::isolated::isolated;

/// The vocabulary and rules in `tokenizer.json`, with the `tokens` of the other files and
/// what the configurations of tokenizer and model say about its use.
pub(super) fn read_vocabulary(
    path: &Path,
    tokens: &mut Tokens,
    config: &Value,
    model: &Value,
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
        if let Some(rules) = classes::rules(config, model, &parts.pre_tokenizer) {
            let normalizer: Option<NormalizerWrapper> = serde_json::from_value(rules.normalizer)?;
            let pre_tokenizer: PreTokenizerWrapper = serde_json::from_value(rules.pre_tokenizer)?;
            vocabulary.with_normalizer(normalizer)?;
            vocabulary.with_pre_tokenizer(Some(pre_tokenizer));
        }
        tokens.add_to(&mut vocabulary)?;
        let is_split = config.get("split_special_tokens").and_then(Value::as_bool);
        vocabulary.set_encode_special_tokens(is_split.unwrap_or(false));
        Ok(vocabulary)
    };
    let vocabulary = isolated(read).map_err(|panic| broken(path, panic))?;
    let vocabulary = vocabulary.map_err(|error| broken(path, error))?;
    tell_of_other_ids(path, &parts, &vocabulary);
    Ok(Some(vocabulary))
}

/// Warns of added tokens whose ids are not those that the file gives them: the library has its own
/// opinion of these.
fn tell_of_other_ids(path: &Path, parts: &Parts, vocabulary: &tokenizers::Tokenizer) {
    let given = parts.added_tokens.as_array().into_iter().flatten();
    let mut others = given.filter_map(|token| {
        let (id, content) = (token.get("id")?.as_u64()?, token.get("content")?.as_str()?);
        let found = vocabulary.token_to_id(content)?;
        (u64::from(found) != id).then_some((content, id, found))
    });
    if let Some((content, id, found)) = others.next() {
        warn!(
            "{}: {} added tokens get other ids than the file says, as in transformers; the first is \
             {content:?}: {id} in the file, and {found} where it is used",
            path.display(),
            1 + others.count()
        );
    }
}
