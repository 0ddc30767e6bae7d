//! Tensors that operations need again and again, copied to a device once.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

/// Values by what they were made from, and their device.
pub(super) struct Constants<K, V>(Mutex<Vec<(K, Device, V)>>);

impl<K: PartialEq, V: Clone> Constants<K, V> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The value for `key` on `device`. A new one is made where there is none, and then those
    /// whose keys are no longer `alive` are forgotten.
    pub(super) fn get(
        &self,
        key: K,
        device: &Device,
        alive: impl Fn(&K) -> bool,
        make: impl FnOnce() -> V,
    ) -> V {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(k, d, _)| *k == key && d == device);
        if let Some((_, _, value)) = found {
            return value.clone();
        }
        known.retain(|(key, _, _)| alive(key));
        let value = make();
        known.push((key, device.clone(), value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_made_once_and_forgotten_with_their_keys() {
        let (constants, device) = (Constants::<i32, i32>::new(), Device::flex());
        let get = |key, value| constants.get(key, &device, |key| *key > 0, || value);
        assert_eq!((get(1, 10), get(-1, 20)), (10, 20));
        assert_eq!((get(1, 11), get(-1, 21)), (10, 20));
        assert_eq!((get(2, 30), get(1, 11), get(-1, 21)), (30, 10, 21));
    }
}
