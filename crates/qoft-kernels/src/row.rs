//! One row of activations.

use std::sync::OnceLock;

use crate::decode::{self, Spread};

/// The activations of a product with one row, in the orders that kernels read them.
#[derive(Debug)]
pub struct InputRow<'a> {
    values: &'a [f32],
    spread: OnceLock<Vec<Spread>>,
}

impl<'a> InputRow<'a> {
    /// A row of one activation for each input feature.
    pub fn new(values: &'a [f32]) -> Self {
        let spread = OnceLock::new();
        Self { values, spread }
    }

    /// The activations.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Whole blocks of them, in the order of 4-bit codes.
    pub(crate) fn spread(&self) -> &[Spread] {
        if let Some(spread) = self.spread.get() {
            return spread;
        }
        // Threads begin at the same time: each makes it, since to wait for another one takes longer.
        let made = decode::spread(self.values);
        self.spread.get_or_init(|| made)
    }
}
