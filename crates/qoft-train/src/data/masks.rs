//! Lists that run along token ids.

use super::error::RowError;
use super::example::{Example, IGNORED};

/// Ignores the labels where `mask` is 0. The mask may run along the padding that was dropped.
pub(super) fn apply_mask(
    name: &'static str,
    mask: &[i64],
    example: &mut Example,
    count: usize,
) -> Result<(), RowError> {
    check_length(name, Some(mask), count)?;
    check_bits(name, mask)?;
    for (label, &is_learned) in example.labels.iter_mut().zip(mask) {
        if is_learned == 0 {
            *label = IGNORED;
        }
    }
    Ok(())
}

fn check_bits(field: &'static str, mask: &[i64]) -> Result<(), RowError> {
    if mask.iter().all(|value| (0..=1).contains(value)) {
        return Ok(());
    }
    Err(RowError::WrongType {
        field,
        expected: "a list of 0 and 1",
    })
}

pub(super) fn check_length(
    field: &'static str,
    list: Option<&[i64]>,
    expected: usize,
) -> Result<(), RowError> {
    match list {
        Some(list) if list.len() != expected => Err(RowError::Length {
            field,
            found: list.len(),
            expected,
        }),
        _ => Ok(()),
    }
}

/// The number of positions before the padding, which has to be at the end.
pub(super) fn unpadded_length(mask: &[i64]) -> Result<usize, RowError> {
    check_bits("attention_mask", mask)?;
    let kept = mask.iter().take_while(|&&value| value == 1).count();
    if mask[kept..].contains(&1) {
        return Err(RowError::Hole { position: kept });
    }
    Ok(kept)
}
