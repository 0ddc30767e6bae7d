//! Which examples are computed together.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::order::Order;

/// Batches whose examples are sorted by length together, as transformers' sampler has it.
const SORTED_BATCHES: usize = 50;

/// Which examples are computed together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// Each in a row of its own, in any order.
    #[default]
    Rows,
    /// Each in a row of its own, beside others of about its length.
    ByLength,
    /// Several in a row.
    Packed {
        /// The most tokens of a row.
        capacity: usize,
        /// The indices of the examples in each row.
        rows: Vec<Vec<usize>>,
    },
}

impl Arrangement {
    /// The examples of the rows of each batch, for `count` of them, which have a `length` each.
    pub(super) fn batches(
        &self,
        count: usize,
        length: &dyn Fn(usize) -> usize,
        order: Order,
        batch_size: NonZeroUsize,
    ) -> Vec<Vec<usize>> {
        let size = batch_size.get();
        match self {
            Self::Rows => chunks(&order.indices(count), size),
            Self::ByLength => {
                let mut indices = order.indices(count);
                if order != Order::File {
                    for part in indices.chunks_mut(size.saturating_mul(SORTED_BATCHES)) {
                        // Stable, so that the order is the same everywhere.
                        part.sort_by_key(|&index| usize::MAX - length(index));
                    }
                    let mut batches = chunks(&indices, size);
                    order.shuffle_whole(&mut batches, size);
                    return batches;
                }
                chunks(&indices, size)
            }
            Self::Packed { rows, .. } => {
                let order = order.indices(rows.len());
                let batches = order.chunks(size);
                let batch =
                    |batch: &[usize]| batch.iter().flat_map(|&row| rows[row].clone()).collect();
                batches.map(batch).collect()
            }
        }
    }

    /// The rows of all batches.
    pub(super) fn rows(&self, examples: usize) -> usize {
        match self {
            Self::Packed { rows, .. } => rows.len(),
            Self::Rows | Self::ByLength => examples,
        }
    }
}

fn chunks(indices: &[usize], size: usize) -> Vec<Vec<usize>> {
    indices.chunks(size).map(<[usize]>::to_vec).collect()
}

/// Puts sequences with some `lengths` into rows of at most `capacity` tokens: the longest first, each
/// into the row that it fills best. A longer one has a row of its own.
pub(super) fn best_fit(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| usize::MAX - lengths[index]);
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Rows by the tokens that they have room for.
    let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        let room = open.range(length..).next().map(|(room, _)| *room);
        let row = room.and_then(|room| {
            let rows = open.get_mut(&room)?;
            let row = rows.pop();
            if rows.is_empty() {
                open.remove(&room);
            }
            row
        });
        let (row, room) = match (row, room) {
            (Some(row), Some(room)) => (row, room),
            _ => {
                rows.push(Vec::new());
                (rows.len() - 1, capacity.max(length))
            }
        };
        rows[row].push(index);
        if room > length {
            open.entry(room - length).or_default().push(row);
        }
    }
    for row in &mut rows {
        row.sort_unstable();
    }
    // In the order of the data, as far as there is one.
    rows.sort();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_as_well_as_they_can_be() {
        assert_eq!(
            best_fit(&[6, 4, 3, 7, 10], 10),
            [vec![0, 1], vec![2, 3], vec![4]]
        );
        assert_eq!(best_fit(&[12, 2, 2], 10), [vec![0], vec![1, 2]]);
        assert_eq!(best_fit(&[], 10), Vec::<Vec<usize>>::new());
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + i * 7919 % 400).collect();
        let rows = best_fit(&lengths, 512);
        let mut all = rows.concat();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..1000));
        let filled = |row: &Vec<usize>| row.iter().map(|&i| lengths[i]).sum::<usize>();
        assert!(rows.iter().all(|row| filled(row) <= 512));
        let total: usize = lengths.iter().sum();
        assert!(total as f64 / (rows.len() * 512) as f64 > 0.98);
    }

    #[test]
    fn batches_by_length_have_rows_of_about_one_length() {
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + i * 7919 % 400).collect();
        let size = NonZeroUsize::new(8).unwrap();
        let batches = |arrangement: Arrangement, epoch| {
            let order = Order::Shuffled { seed: 1, epoch };
            arrangement.batches(1000, &|i| lengths[i], order, size)
        };
        let padded = |batches: &[Vec<usize>]| {
            let batch = |b: &Vec<usize>| b.len() * b.iter().map(|&i| lengths[i]).max().unwrap_or(0);
            batches.iter().map(batch).sum::<usize>()
        };
        let (by_length, plain) = (
            batches(Arrangement::ByLength, 0),
            batches(Arrangement::Rows, 0),
        );
        let total: usize = lengths.iter().sum();
        assert!(padded(&by_length) < total * 11 / 10 && padded(&plain) > total * 3 / 2);
        assert_ne!(by_length, batches(Arrangement::ByLength, 1));
        let mut all = by_length.concat();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..1000));
        assert!(by_length.iter().rev().skip(1).all(|batch| batch.len() == 8));
    }
}
