//! The order in which an epoch goes through its data.

use qoft_core::Random;

/// The order in which an epoch goes through the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// As in the file.
    File,
    /// Shuffled: the same `seed` and `epoch` give the same order, another epoch another one.
    Shuffled {
        /// The seed of the run.
        seed: u64,
        /// The number of the epoch.
        epoch: u64,
    },
}

impl Order {
    /// The indices of `count` examples in this order.
    #[must_use]
    pub fn indices(self, count: usize) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..count).collect();
        if let Self::Shuffled { seed, epoch } = self {
            Random::keyed(&[seed, epoch]).shuffle(&mut indices);
        }
        indices
    }

    /// Changes the order of whole batches of `size` rows, where it is not that of the file.
    pub(super) fn shuffle_whole(self, batches: &mut [Vec<usize>], size: usize) {
        let whole = batches
            .iter()
            .take_while(|batch| batch.len() == size)
            .count();
        if let Self::Shuffled { seed, epoch } = self {
            Random::keyed(&[seed, epoch, 1]).shuffle(&mut batches[..whole]);
        }
    }
}
