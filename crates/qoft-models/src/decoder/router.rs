//! Which experts a token goes to, and how much each of them counts.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::kernels::ops::RoutedRows;

/// How a router turns its outputs into weights of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterConfig {
    /// Experts that a router chooses from.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Whether the weights of a token's experts add up to 1; otherwise they are their shares among all
    /// experts.
    pub normalized: bool,
}

impl RouterConfig {
    /// The best `top_k` of `experts`.
    pub fn new(experts: usize, top_k: usize, normalized: bool) -> Self {
        Self {
            experts,
            top_k,
            normalized,
        }
    }
}

/// Tokens sorted by their experts.
#[derive(Debug)]
pub struct Routing {
    /// Experts that have tokens, in order, and how many.
    pub hits: Vec<(usize, usize)>,
    /// The places of tokens among the rows that are sorted by expert.
    pub rows: RoutedRows,
    /// How much each of these rows counts, `[rows, 1]`.
    pub weights: Tensor<2>,
}

impl RouterConfig {
    /// Routes tokens by the outputs of a router, `[tokens, experts]`, to those that are [`Self::chosen`] by
    /// them.
    pub fn route(&self, logits: Tensor<2>, chosen: &[usize]) -> Routing {
        let [tokens, experts] = logits.dims();
        let mut counts = vec![0; experts];
        for &expert in chosen {
            counts[expert] += 1;
        }
        let mut next: Vec<usize> = counts
            .iter()
            .scan(0, |end, count| Some(std::mem::replace(end, *end + count)))
            .collect();
        let place = |&expert: &usize| {
            let place = next[expert];
            next[expert] += 1;
            place
        };
        let places: Vec<usize> = chosen.iter().map(place).collect();
        let mut slots = vec![0; places.len()];
        for (slot, &place) in places.iter().enumerate() {
            slots[place] = slot as i32;
        }
        let weights = self.weights(logits, chosen);
        let device = weights.device().without_autodiff();
        let slots = Tensor::<1, Int>::from_data(slots.as_slice(), &device);
        let hits = counts
            .into_iter()
            .enumerate()
            .filter(|(_, count)| *count > 0);
        Routing {
            hits: hits.collect(),
            rows: RoutedRows::new(places, self.top_k),
            weights: weights.reshape([tokens * self.top_k, 1]).select(0, slots),
        }
    }

    /// The experts of each token, one token after another.
    pub fn chosen(&self, logits: &Tensor<2>) -> Vec<usize> {
        let experts = logits.dims()[1];
        let values: Vec<f32> = logits.to_data().iter::<f32>().collect();
        let rows = values.chunks_exact(experts.max(1));
        rows.flat_map(|row| self.best(row)).collect()
    }

    /// The experts with the largest values, the largest one first; of equal ones the earlier.
    fn best(&self, row: &[f32]) -> Vec<usize> {
        let mut experts: Vec<usize> = (0..row.len()).collect();
        experts.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        experts.truncate(self.top_k);
        experts
    }

    /// How much each of the chosen experts counts, `[tokens, top_k]`.
    fn weights(&self, logits: Tensor<2>, chosen: &[usize]) -> Tensor<2> {
        let tokens = logits.dims()[0];
        let device = logits.device().without_autodiff();
        let chosen: Vec<i32> = chosen.iter().map(|&expert| expert as i32).collect();
        let chosen = TensorData::new(chosen, [tokens, self.top_k]);
        let chosen = Tensor::<2, Int>::from_data(chosen, &device);
        // The shares of the chosen ones among themselves are what their logits alone give.
        match self.normalized {
            true => softmax(logits.gather(1, chosen), 1),
            false => softmax(logits, 1).gather(1, chosen),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn route(normalized: bool) -> Routing {
        let logits = [[0.0, 3.0, 1.0, 2.0], [5.0, 5.0, -1.0, f32::NEG_INFINITY]];
        let logits = Tensor::<2>::from_data(logits, &Device::flex());
        let router = RouterConfig::new(4, 2, normalized);
        let chosen = router.chosen(&logits);
        router.route(logits, &chosen)
    }

    #[test]
    fn tokens_are_sorted_by_expert() {
        let routing = route(false);
        assert_eq!(routing.hits, [(0, 1), (1, 2), (3, 1)]);
        // Rows: token 1 at expert 0, tokens 0 and 1 at expert 1, token 0 at expert 3.
        assert_eq!(routing.rows.sources(), [1, 0, 1, 0]);
        assert_eq!(routing.rows.places(), [1, 3, 0, 2]);
    }

    #[test]
    fn weights_are_shares_of_all_experts_or_of_the_chosen_ones() {
        let e = |x: f64| x.exp();
        let all = 1.0 + e(3.0) + e(1.0) + e(2.0);
        let close = |found: Routing, expected: [f64; 4]| {
            let found: Vec<f64> = found.weights.into_data().iter::<f64>().collect();
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}");
            }
        };
        let half = e(5.0) / (2.0 * e(5.0) + e(-1.0));
        close(route(false), [half, e(3.0) / all, half, e(2.0) / all]);
        let two = e(3.0) + e(2.0);
        close(route(true), [0.5, e(3.0) / two, 0.5, e(2.0) / two]);
    }
}
