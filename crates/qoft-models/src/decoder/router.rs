//! Which experts a token goes to, and how much each of them counts.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::kernels::ops::RoutedRows;

/// How a router turns its outputs into weights of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RouterConfig {
    /// Experts that a router chooses from.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Whether the weights of a token's experts add up to 1; otherwise they are their shares among all
    /// experts.
    pub normalized: bool,
    /// What the scores of experts are.
    pub scores: Scores,
}

/// What the scores of experts are, from the outputs of a router.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Scores {
    /// Shares of a softmax.
    Softmax,
    /// The sigmoid of each output.
    Sigmoid(SigmoidScores),
}

/// Scores that are sigmoids: a correction of each expert, `e_score_correction_bias`, is added where experts are
/// chosen, but not to their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SigmoidScores {
    /// Groups of neighbouring experts, all of the same size.
    pub groups: usize,
    /// Of these only so many have experts for a token: those whose two best experts have the largest sum.
    pub top_groups: usize,
    /// Multiplies the weights.
    pub scale: f64,
}

impl SigmoidScores {
    /// Experts of one group, with weights as they are.
    pub const PLAIN: Self = Self {
        groups: 1,
        top_groups: 1,
        scale: 1.0,
    };
}

impl RouterConfig {
    /// The best `top_k` of `experts`.
    pub fn new(experts: usize, top_k: usize, normalized: bool) -> Self {
        Self {
            experts,
            top_k,
            normalized,
            scores: Scores::Softmax,
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

    /// The experts of each token, one token after another. `correction` has a number for each expert where
    /// the scores need it.
    pub fn chosen(&self, logits: &Tensor<2>, correction: Option<&[f32]>) -> Vec<usize> {
        let experts = logits.dims()[1];
        let values: Vec<f32> = logits.to_data().iter::<f32>().collect();
        let rows = values.chunks_exact(experts.max(1));
        match self.scores {
            Scores::Softmax => rows.flat_map(|row| best(row, self.top_k)).collect(),
            Scores::Sigmoid(scores) => {
                let chosen = |row: &[f32]| {
                    let row = row.iter().enumerate().map(|(expert, &value)| {
                        let correction = correction.map_or(0.0, |all| all[expert]);
                        1.0 / (1.0 + (-value).exp()) + correction
                    });
                    best(&scores.in_top_groups(row.collect()), self.top_k)
                };
                rows.flat_map(chosen).collect()
            }
        }
    }

    /// How much each of the chosen experts counts, `[tokens, top_k]`.
    fn weights(&self, logits: Tensor<2>, chosen: &[usize]) -> Tensor<2> {
        let tokens = logits.dims()[0];
        let device = logits.device().without_autodiff();
        let chosen: Vec<i32> = chosen.iter().map(|&expert| expert as i32).collect();
        let chosen = TensorData::new(chosen, [tokens, self.top_k]);
        let chosen = Tensor::<2, Int>::from_data(chosen, &device);
        match self.scores {
            // The shares of the chosen ones among themselves are what their logits alone give.
            Scores::Softmax if self.normalized => softmax(logits.gather(1, chosen), 1),
            Scores::Softmax => softmax(logits, 1).gather(1, chosen),
            Scores::Sigmoid(scores) => {
                let weights = sigmoid(logits.gather(1, chosen));
                let weights = match self.normalized {
                    // As in transformers, where the sum is never 0.
                    true => weights.clone() / (weights.sum_dim(1) + 1e-20),
                    false => weights,
                };
                weights * scores.scale
            }
        }
    }
}

impl SigmoidScores {
    /// The scores of experts in the best groups; all others have none.
    fn in_top_groups(self, mut scores: Vec<f32>) -> Vec<f32> {
        if self.top_groups >= self.groups {
            return scores;
        }
        let size = scores.len() / self.groups;
        let of_groups = scores.chunks_exact(size).map(|group| {
            let two = best(group, 2);
            two.into_iter().map(|expert| group[expert]).sum()
        });
        let kept = best(&of_groups.collect::<Vec<f32>>(), self.top_groups);
        for (group, scores) in scores.chunks_exact_mut(size).enumerate() {
            if !kept.contains(&group) {
                scores.fill(f32::NEG_INFINITY);
            }
        }
        scores
    }
}

/// The places of the largest values, that of the largest one first; of equal ones the earlier.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    places.truncate(count);
    places
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn route(normalized: bool) -> Routing {
        let logits = [[0.0, 3.0, 1.0, 2.0], [5.0, 5.0, -1.0, f32::NEG_INFINITY]];
        let logits = Tensor::<2>::from_data(logits, &Device::flex());
        let router = RouterConfig::new(4, 2, normalized);
        let chosen = router.chosen(&logits, None);
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

    #[test]
    fn sigmoids_are_corrected_where_experts_are_chosen() {
        // Sigmoids: 0.5, 0.881, 0.731, 0.269, 0.119, 0.953.
        let logits = Tensor::<2>::from_data([[0.0, 2.0, 1.0, -1.0, -2.0, 3.0]], &Device::flex());
        let mut router = RouterConfig::new(6, 2, false);
        let mut scores = SigmoidScores {
            scale: 2.0,
            ..SigmoidScores::PLAIN
        };
        router.scores = Scores::Sigmoid(scores);
        assert_eq!(router.chosen(&logits, None), [5, 1]);
        let correction = [0.5, 0.0, 0.0, 0.0, 0.8, 0.0];
        assert_eq!(router.chosen(&logits, Some(&correction)), [0, 5]);
        // Of the pairs the first one has 1.881, the second one 1.0, the last one 1.872.
        (scores.groups, scores.top_groups) = (3, 1);
        router.scores = Scores::Sigmoid(scores);
        let chosen = router.chosen(&logits, Some(&correction));
        assert_eq!(chosen, [0, 1]);
        let weights = |router: RouterConfig| -> Vec<f64> {
            let routing = router.route(logits.clone(), &chosen);
            routing.weights.into_data().iter::<f64>().collect()
        };
        let s = |x: f64| 1.0 / (1.0 + (-x).exp());
        let near = |found: Vec<f64>, expected: [f64; 2]| {
            let pairs = found.iter().zip(expected);
            assert!(
                pairs.clone().all(|(a, b)| (a - b).abs() < 1e-6),
                "{found:?}"
            );
        };
        near(weights(router), [2.0 * s(0.0), 2.0 * s(2.0)]);
        router.normalized = true;
        let sum = s(0.0) + s(2.0);
        near(weights(router), [2.0 * s(0.0) / sum, 2.0 * s(2.0) / sum]);
    }
}
