//! Numbers that are measured beside the loss.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::group::{Reader, Words};

/// What is measured in batches, by the names that TRL has for it. As there each batch counts the same,
/// whatever its size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<Cow<'static, str>, Mean>);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Metrics {
    /// The share of the predicted tokens that are the likeliest ones.
    pub const TOKEN_ACCURACY: &'static str = "mean_token_accuracy";

    /// Adds what was measured in a batch; nothing if it is no number.
    pub fn add(&mut self, name: &'static str, value: f64) {
        if value.is_finite() {
            let mean = self.0.entry(Cow::Borrowed(name)).or_default();
            mean.sum += value;
            mean.count += 1.0;
        }
    }

    /// Adds what was measured in other batches.
    pub fn merge(&mut self, other: &Self) {
        for (name, other) in &other.0 {
            let mean = self.0.entry(name.clone()).or_default();
            mean.sum += other.sum;
            mean.count += other.count;
        }
    }

    /// The means by name.
    #[must_use]
    pub fn means(&self) -> BTreeMap<String, f64> {
        let means = self.0.iter();
        means
            .map(|(name, mean)| (name.to_string(), mean.sum / mean.count))
            .collect()
    }

    /// Writes them for another process.
    pub(crate) fn write(&self, words: &mut Words) {
        words.number(self.0.len() as u64);
        for (name, mean) in &self.0 {
            words.text(name);
            words.float(mean.sum);
            words.float(mean.count);
        }
    }

    /// Reads those of another process; `None` if there are none.
    pub(crate) fn read(reader: &mut Reader) -> Option<Self> {
        let mut metrics = Self::default();
        for _ in 0..reader.number()? {
            let name = Cow::Owned(reader.text()?.to_owned());
            let (sum, count) = (reader.float()?, reader.float()?);
            metrics.0.insert(name, Mean { sum, count });
        }
        Some(metrics)
    }
}

/// What a batch comes to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchLoss<L = Tensor<1>> {
    /// The loss.
    pub loss: L,
    /// What was measured beside it.
    pub metrics: Metrics,
}

impl<L> BatchLoss<L> {
    /// A loss with what was measured beside it.
    pub fn new(loss: L, metrics: Metrics) -> Self {
        Self { loss, metrics }
    }
}

impl<L> From<L> for BatchLoss<L> {
    fn from(loss: L) -> Self {
        Self::new(loss, Metrics::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_the_same() {
        let mut metrics = Metrics::default();
        metrics.add("a", 1.0);
        let mut other = Metrics::default();
        other.add("a", 0.0);
        other.add("b", 5.0);
        other.add("c", f64::NAN);
        metrics.merge(&other);
        let expected = [("a".to_owned(), 0.5), ("b".to_owned(), 5.0)];
        assert_eq!(metrics.means(), BTreeMap::from(expected));
        let mut words = Words::default();
        metrics.write(&mut words);
        let bytes = words.into_bytes();
        assert_eq!(Metrics::read(&mut Reader::new(&bytes)), Some(metrics));
        assert_eq!(Metrics::read(&mut Reader::new(&bytes[..9])), None);
    }
}
