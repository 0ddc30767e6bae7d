//! A batch as models of tokens take it.

use crate::data::{Batch, DataRow, Rows};
use crate::error::TrainError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_models::Tokens;

/// Fails if a row is longer than the `longest` that a model can compute.
///
/// # Errors
///
/// [`TrainError::RowTooLong`].
pub fn check_lengths<R: DataRow>(rows: &Rows<R>, longest: Option<usize>) -> Result<(), TrainError> {
    let lengths = rows.examples.iter().map(DataRow::longest).enumerate();
    match (lengths.max_by_key(|(_, length)| *length), longest) {
        (Some((index, tokens)), Some(limit)) if tokens > limit => Err(TrainError::RowTooLong {
            row: rows.row_names(&[index]).concat(),
            tokens,
            limit,
        }),
        _ => Ok(()),
    }
}

/// The token ids, `[batch_size, seq_len]`.
#[must_use]
pub fn input_ids(batch: &Batch, device: &Device) -> Tensor<2, Int> {
    let shape = [batch.batch_size, batch.seq_len];
    Tensor::from_data(TensorData::new(batch.input_ids.clone(), shape), device)
}

/// The token ids with what stands in each row.
pub(crate) fn tokens(batch: &Batch, device: &Device) -> Tokens {
    let ids = input_ids(batch, device);
    match &batch.sequences {
        Some(lengths) => Tokens::packed(ids, lengths),
        None => ids.into(),
    }
}

/// What the model is to predict at each of the `batch_size * seq_len` positions: the label of the
/// position behind it in the same row, or nothing.
#[must_use]
pub fn targets(batch: &Batch) -> Vec<Option<u32>> {
    let mut targets = Vec::with_capacity(batch.labels.len());
    for row in batch.labels.chunks(batch.seq_len.max(1)) {
        // Ignored labels are negative.
        targets.extend(row[1..].iter().map(|&label| u32::try_from(label).ok()));
        targets.push(None);
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Example, IGNORED};

    #[test]
    fn targets_are_the_labels_behind_each_position_of_a_row() {
        let long = Example::new(vec![5, 6, 7], vec![IGNORED, 6, 7]);
        let short = Example::new(vec![8, 9], vec![8, 9]);
        let batch = Batch::new(&[&long, &short]);
        let found = targets(&batch);
        assert_eq!(found, [Some(6), Some(7), None, Some(9), None, None]);
        assert_eq!(found.iter().flatten().count(), batch.predicted);
    }
}
