//! Batches of examples, padded to one length.

use super::example::{Example, IGNORED};

/// Examples side by side, padded at their ends with id 0 and label [`IGNORED`], or one after another in
/// one row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Token ids, `[batch_size * seq_len]`, row by row.
    pub input_ids: Vec<i32>,
    /// Labels, `[batch_size * seq_len]`, row by row.
    pub labels: Vec<i32>,
    /// The number of rows.
    pub batch_size: usize,
    /// The length of each row in tokens: that of the longest example.
    pub seq_len: usize,
    /// The length of each row without its padding.
    pub lengths: Vec<usize>,
    /// The lengths of the examples in the only row, which must not see each other; `None` where each
    /// has a row of its own.
    pub sequences: Option<Vec<usize>>,
    /// The number of tokens without the padding.
    pub tokens: usize,
    /// The number of labels to predict; see [`Example::predicted`]. It can be 0.
    pub predicted: usize,
}

impl Batch {
    /// Puts `examples` side by side.
    #[must_use]
    pub fn new(examples: &[&Example]) -> Self {
        let lengths = examples.iter().map(|example| example.input_ids.len());
        let seq_len = lengths.clone().max().unwrap_or(0);
        let mut batch = Self {
            input_ids: Vec::with_capacity(examples.len() * seq_len),
            labels: Vec::with_capacity(examples.len() * seq_len),
            batch_size: examples.len(),
            seq_len,
            tokens: lengths.clone().sum(),
            lengths: lengths.collect(),
            sequences: None,
            predicted: examples.iter().map(|example| example.predicted()).sum(),
        };
        for (row, example) in examples.iter().enumerate() {
            let end = (row + 1) * seq_len;
            // Ids are checked to be below `i32::MAX` when an example is made.
            batch
                .input_ids
                .extend(example.input_ids.iter().map(|&id| id as i32));
            batch.input_ids.resize(end, 0);
            batch.labels.extend_from_slice(&example.labels);
            batch.labels.resize(end, IGNORED);
        }
        batch
    }

    /// Puts `examples` one after another in one row, without padding. Nothing is predicted from one
    /// about the next.
    #[must_use]
    pub fn packed(examples: &[&Example]) -> Self {
        let sequences: Vec<usize> = examples
            .iter()
            .map(|example| example.input_ids.len())
            .collect();
        let total = sequences.iter().sum();
        let (mut input_ids, mut labels) = (Vec::with_capacity(total), Vec::with_capacity(total));
        for example in examples {
            input_ids.extend(example.input_ids.iter().map(|&id| id as i32));
            let first = example.labels.first().map(|_| IGNORED);
            labels.extend(
                first
                    .into_iter()
                    .chain(example.labels.iter().skip(1).copied()),
            );
        }
        Self {
            input_ids,
            labels,
            batch_size: 1,
            seq_len: total,
            lengths: vec![total],
            sequences: Some(sequences),
            tokens: total,
            predicted: examples.iter().map(|example| example.predicted()).sum(),
        }
    }
}

/// The batches of one epoch; the last one holds what is left and may be smaller.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    examples: &'a [Example],
    /// The examples of each batch.
    batches: std::vec::IntoIter<Vec<usize>>,
    is_packed: bool,
}

impl<'a> Batches<'a> {
    /// Batches of `examples` with some indices.
    pub(super) fn new(examples: &'a [Example], batches: Vec<Vec<usize>>, is_packed: bool) -> Self {
        Self {
            examples,
            batches: batches.into_iter(),
            is_packed,
        }
    }

    fn batch(&self, indices: &[usize]) -> Batch {
        let examples = indices.iter().filter_map(|&index| self.examples.get(index));
        let examples: Vec<&Example> = examples.collect();
        match self.is_packed {
            true => Batch::packed(&examples),
            false => Batch::new(&examples),
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let indices = self.batches.next()?;
        Some(self.batch(&indices))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.batches.size_hint()
    }

    /// Skips `count` batches without making them, as a resumed run does.
    fn nth(&mut self, count: usize) -> Option<Batch> {
        let indices = self.batches.nth(count)?;
        Some(self.batch(&indices))
    }
}

impl ExactSizeIterator for Batches<'_> {}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::data::{Dataset, Order};

    /// Example `n` has the ids n, n, … `length` times, and all but the first label ignored where
    /// `n` is odd.
    fn examples(lengths: &[usize]) -> Vec<Example> {
        let example = |(n, &length): (usize, &usize)| {
            let label = |i: usize| match n % 2 == 1 && i > 0 {
                true => IGNORED,
                false => n as i32,
            };
            Example::new(vec![n as u32; length], (0..length).map(label).collect())
        };
        lengths.iter().enumerate().map(example).collect()
    }

    fn size(value: usize) -> NonZeroUsize {
        NonZeroUsize::new(value).unwrap()
    }

    #[test]
    fn rows_are_padded_at_their_ends_and_counted_without_padding() {
        let examples = examples(&[1, 3, 2]);
        let rows: Vec<&Example> = examples.iter().collect();
        assert_eq!(
            Batch::new(&rows),
            Batch {
                input_ids: vec![0, 0, 0, 1, 1, 1, 2, 2, 0],
                labels: vec![0, -100, -100, 1, -100, -100, 2, 2, -100],
                batch_size: 3,
                seq_len: 3,
                lengths: vec![1, 3, 2],
                sequences: None,
                tokens: 6,
                predicted: 1,
            }
        );
    }

    #[test]
    fn packed_examples_predict_nothing_of_each_other() {
        let examples = examples(&[2, 1, 3]);
        let batch = Batch::packed(&examples.iter().collect::<Vec<_>>());
        assert_eq!(batch.input_ids, [0, 0, 1, 2, 2, 2]);
        assert_eq!(batch.labels, [-100, 0, -100, -100, 2, 2]);
        assert_eq!((batch.batch_size, batch.seq_len, batch.tokens), (1, 6, 6));
        assert_eq!((batch.sequences, batch.predicted), (Some(vec![2, 1, 3]), 3));
    }

    #[test]
    fn the_last_batch_holds_what_is_left() {
        let dataset = Dataset::new(examples(&[1; 5]));
        let batches = dataset.batches(Order::File, size(2));
        assert_eq!(batches.len(), 3);
        let ids: Vec<_> = batches.map(|batch| batch.input_ids).collect();
        assert_eq!(ids, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn skipped_batches_leave_the_others_as_they_are() {
        let dataset = Dataset::new(examples(&[1; 10]));
        let order = Order::Shuffled { seed: 3, epoch: 1 };
        let all: Vec<_> = dataset.batches(order, size(3)).collect();
        for skipped in 0..6 {
            let rest: Vec<_> = dataset.batches(order, size(3)).skip(skipped).collect();
            assert_eq!(rest, all[skipped.min(all.len())..]);
        }
    }

    /// A resumed run goes on in the same order, whatever version of the program began it.
    #[test]
    fn the_order_of_a_seed_stays_what_it_is() {
        let order = |seed, epoch| Order::Shuffled { seed, epoch }.indices(8);
        assert_eq!(order(42, 0), [2, 4, 1, 6, 7, 3, 0, 5]);
        assert_eq!(order(42, 1), [7, 3, 4, 2, 1, 5, 0, 6]);
    }

    #[test]
    fn shuffling_depends_on_seed_and_epoch_and_loses_nothing() {
        let order = |seed, epoch| Order::Shuffled { seed, epoch }.indices(50);
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        let mut sorted = order(1, 0);
        assert_ne!(sorted, Order::File.indices(50));
        sorted.sort_unstable();
        assert_eq!(sorted, Order::File.indices(50));
    }
}
