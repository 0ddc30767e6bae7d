//! Sequences that go on together.

use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_core::{AdapterChoice, Lanes, lanes};

use crate::cache::Cache;
use crate::head;
use crate::model::CausalLm;

/// The next tokens of a sequence.
#[derive(Debug)]
pub struct Continuation<'a, C = Cache> {
    /// Their ids; one at least.
    pub ids: &'a [u32],
    /// What is kept of the tokens before them.
    pub cache: &'a mut C,
    /// The adapters that compute for them; `None`: those that are active. Of sequences that go on together
    /// either all have a choice or none.
    pub adapters: Option<AdapterChoice>,
}

impl<C> Continuation<'_, C> {
    /// The ids as a row of `[1, time]`.
    pub fn row(&self, device: &Device) -> Tensor<2, Int> {
        row(self.ids, device)
    }

    /// What `f` makes with the adapters of this sequence.
    pub fn with_adapters<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        match self.adapters.clone() {
            None => f(self),
            Some(choice) => lanes::with(&Lanes::one(choice), || f(self)),
        }
    }
}

fn row(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    // Ids are below the size of the vocabulary, which is below `i32::MAX`.
    let values: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), device)
}

impl CausalLm {
    /// Logits `[sequences, vocab]` of the tokens after these: all of them pass through the model at once,
    /// unless its blocks [cannot do that](crate::Body::continues_several). Sequences with the same adapters
    /// should stand one after another.
    ///
    /// # Panics
    /// As [`Self::last_logits`], and if there is no sequence, or only some have a choice of adapters.
    pub fn continued(&self, mut sequences: Vec<Continuation>, device: &Device) -> Tensor<2> {
        if sequences.len() == 1 || !self.body().continues_several() {
            let logits = sequences.iter_mut().map(|sequence| {
                let ids = sequence.row(device);
                sequence.with_adapters(|sequence| self.last_logits(ids, Some(sequence.cache)))
            });
            return Tensor::cat(logits.collect(), 0);
        }
        let lengths: Vec<usize> = sequences.iter().map(|part| part.ids.len()).collect();
        let choices = sequences.iter().filter_map(|part| part.adapters.clone());
        let choices: Vec<AdapterChoice> = choices.collect();
        assert!(
            choices.is_empty() || choices.len() == sequences.len(),
            "adapters of all sequences or of none"
        );
        let ids: Vec<u32> = sequences
            .iter()
            .flat_map(|part| part.ids)
            .copied()
            .collect();
        let ids = row(&ids, device);
        let caches = sequences.into_iter().map(|part| part.cache);
        let caches = caches.zip(lengths.iter().copied()).collect();
        let hidden = in_lanes(&choices, lengths.iter().copied(), || {
            self.body().continued(ids, caches).into_tensor()
        });
        let width = hidden.dims()[2];
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end as i32 - 1)
        });
        let ends: Vec<i32> = ends.collect();
        let ends = Tensor::<1, Int>::from_data(ends.as_slice(), device);
        let total = lengths.iter().sum();
        let last = hidden.reshape([total, width]).select(0, ends);
        // The head sees one row of each sequence.
        let ones = std::iter::repeat_n(1, lengths.len());
        let outputs = in_lanes(&choices, ones, || self.lm_head().forward(last));
        head::logits(self.config(), outputs)
    }
}

/// What `f` makes, with these choices for so many rows each.
fn in_lanes<T>(
    choices: &[AdapterChoice],
    rows: impl Iterator<Item = usize>,
    f: impl FnOnce() -> T,
) -> T {
    match choices {
        [] => f(),
        choices => lanes::with(&Lanes::new(choices.iter().cloned().zip(rows)), f),
    }
}
