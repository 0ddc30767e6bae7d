//! The token of the padding.

use qoft_core::Result;

use crate::json::Object;

/// The row of the embedding table that does not train: that of `pad_token_id`, or of `absent` in
/// files that do not mention it. A number below 0 counts from the end of the table, as in torch.
///
/// # Errors
/// If it is no number.
pub fn pad_token_id(json: Object, absent: Option<i64>, vocab_size: usize) -> Result<Option<usize>> {
    let id = match json.has("pad_token_id") {
        true => json.get::<i64>("pad_token_id")?,
        false => absent,
    };
    let id = id.map(|id| {
        if id < 0 {
            id.saturating_add_unsigned(vocab_size as u64)
        } else {
            id
        }
    });
    Ok(id
        .and_then(|id| usize::try_from(id).ok())
        .filter(|&id| id < vocab_size))
}
