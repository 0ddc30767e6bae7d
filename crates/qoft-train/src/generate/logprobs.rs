//! How likely a model finds tokens.

/// The natural logarithms of the probabilities that a model gives tokens, before anything is done to its logits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Logprobs {
    /// That of the token itself.
    pub own: f32,
    /// The likeliest tokens with theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Those of token `id` and of the `count` likeliest ones.
    pub(crate) fn of(logits: &[f32], id: u32, count: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .map(|&logit| f64::from(logit - largest).exp())
            .sum();
        let all = f64::from(largest) + sum.ln();
        let of = |id: u32| (f64::from(logits[id as usize]) - all) as f32;
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        // Of equal ones the earlier token is the first, as where the likeliest one is chosen.
        let falling = |a: &u32, b: &u32| {
            let [x, y] = [a, b].map(|id| logits[*id as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let count = count.min(ids.len());
        if count > 0 && count < ids.len() {
            ids.select_nth_unstable_by(count - 1, falling);
        }
        ids.truncate(count);
        ids.sort_unstable_by(falling);
        Self {
            own: of(id),
            top: ids.into_iter().map(|id| (id, of(id))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_logarithms_of_shares() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].map(|p| p.ln() + 7.0).into();
        let found = Logprobs::of(&logits, 2, 2);
        let close = |a: f32, b: f32| assert!((a - b.ln()).abs() < 1e-5, "{a} {b}");
        close(found.own, 0.2);
        assert_eq!(
            found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1, 3]
        );
        close(found.top[0].1, 0.4);
        close(found.top[1].1, 0.3);
        assert!(Logprobs::of(&logits, 2, 0).top.is_empty());
        assert_eq!(Logprobs::of(&logits, 2, 9).top.len(), 4);
        assert_eq!(Logprobs::of(&[1.0, 1.0, 1.0], 2, 1).top[0].0, 0);
    }
}
