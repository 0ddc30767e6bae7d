//! Tensors that are parts of others.

use super::{Checkpoint, Stored};
use crate::mapped::TensorPart;

impl Checkpoint {
    /// Lets this checkpoint have the parts of a tensor of `[count, shares · rows, ..]` as tensors of their
    /// own, `[rows, ..]`: `name` makes their names from the index in the first dimension and the share in
    /// the second one. No bytes are copied. A tensor that cannot be divided so stays as it is.
    pub fn divide(&mut self, tensor: &str, shares: usize, name: impl Fn(usize, usize) -> String) {
        let Some(stored) = self
            .tensors
            .get(tensor)
            .filter(|stored| stored.part.is_none())
        else {
            return;
        };
        let inside = stored.name.clone().unwrap_or_else(|| tensor.to_owned());
        let Some(count) = stored.shard.parts(&inside, shares) else {
            return;
        };
        let shard = stored.shard.clone();
        self.tensors.remove(tensor);
        for index in 0..count {
            for share in 0..shares {
                let part = TensorPart {
                    index,
                    share,
                    shares,
                };
                let stored = Stored {
                    shard: shard.clone(),
                    name: Some(inside.clone()),
                    part: Some(part),
                };
                self.tensors.insert(name(index, share), stored);
            }
        }
    }

    /// Gives a tensor another name, if it is there and the name is free.
    pub fn rename(&mut self, tensor: &str, name: String) {
        if self.tensors.contains_key(&name) {
            return;
        }
        if let Some(mut stored) = self.tensors.remove(tensor) {
            stored.name.get_or_insert_with(|| tensor.to_owned());
            self.tensors.insert(name, stored);
        }
    }
}
