//! How large the batches of data are, and data of which batches are as large.

use crate::data::{Dataset, Example};
use crate::model::TrainData;

/// Data of which it can be told what a training on it costs.
pub trait MeasuredData: TrainData + Sized {
    /// Rows and length in tokens of the batch that has these of its examples, padding counted.
    fn shape(&self, examples: &[usize]) -> (usize, usize);

    /// Tokens of the longest row; none where rows are what is put into them.
    fn longest(&self) -> Option<usize>;

    /// Data made from its longest row for so many batches of a shape, and the rows of one of them. Training
    /// on it costs as much as on such batches of this data.
    fn like(&self, shape: (usize, usize), batches: usize) -> (usize, Self);
}

impl MeasuredData for Dataset {
    fn shape(&self, examples: &[usize]) -> (usize, usize) {
        let lengths = examples.iter().map(|&at| self.examples[at].input_ids.len());
        match self.is_packed() {
            true => (1, lengths.sum()),
            false => (examples.len(), lengths.max().unwrap_or(0)),
        }
    }

    fn longest(&self) -> Option<usize> {
        (!self.is_packed()).then_some(self.report.longest)
    }

    fn like(&self, (rows, length): (usize, usize), batches: usize) -> (usize, Self) {
        let longest = self.examples.iter().max_by_key(|e| e.input_ids.len());
        let made = |count: usize, length: usize| {
            Dataset::new((0..count * batches).map(|_| of_length(longest, length)))
        };
        if !self.is_packed() {
            return (rows, made(rows, length));
        }
        let mean = self.report.tokens / self.examples.len().max(1);
        // As many as a row holds on average, which fill it.
        let count = (length / mean.max(2)).max(1);
        (1, made(count, length / count).packed(length))
    }
}

/// An example of `length` tokens, which are those of another one again and again.
pub(crate) fn of_length(example: Option<&Example>, length: usize) -> Example {
    let (ids, labels) = example.map_or((&[0][..], &[0][..]), |e| (&e.input_ids[..], &e.labels[..]));
    let length = length.max(2);
    let ids = ids.iter().copied().cycle().take(length);
    let labels = labels.iter().copied().cycle().take(length);
    let mut example = Example::new(ids.collect(), labels.collect());
    // Where nothing is learned nothing is computed backwards.
    if example.predicted() == 0
        && let (Some(label), Some(&id)) = (example.labels.last_mut(), example.input_ids.last())
    {
        *label = id as i32;
    }
    example
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_made_longer() {
        let rows = Dataset::new([3, 2].map(|n| Example::new(vec![1; n], vec![1; n])));
        let (count, made) = rows.like((2, 5), 3);
        assert_eq!((count, made.examples.len(), made.report.longest), (2, 6, 5));
        assert!(made.report.predicted > 0);
        let (count, packed) = rows.packed(8).like((1, 8), 2);
        assert_eq!((count, packed.rows()), (1, 2));
    }
}
