//! Losses that belong to a batch as a whole.

use super::dual::Dual;

/// A loss of a better and a worse answer, which need not belong to the same prompt.
pub(super) struct Matched {
    /// The pair of the better answer.
    pub(super) chosen: usize,
    /// The pair of the worse one.
    pub(super) rejected: usize,
    /// The loss, with its slopes in the log-probabilities of both.
    pub(super) loss: Dual,
}

/// What answers to the prompts of a batch come to: a number for each pair.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    /// Of the better answers.
    pub(super) chosen: &'a [f64],
    /// Of the worse ones.
    pub(super) rejected: &'a [f64],
}

/// AOT of pairs: the differences of the model are sorted, and those of the reference, and compared in their
/// order.
pub(super) fn aot(
    model: Answered,
    reference: Answered,
    loss: &dyn Fn(Dual) -> Dual,
) -> Vec<Matched> {
    let difference = |of: Answered| -> Vec<f64> {
        of.chosen
            .iter()
            .zip(of.rejected)
            .map(|(a, b)| a - b)
            .collect()
    };
    let (model_order, by_reference) = (sorted(&difference(model)), difference(reference));
    let pairs = model_order.into_iter().zip(sorted(&by_reference));
    pairs
        .map(|(pair, other)| {
            let chosen = Dual::variable(model.chosen[pair], 0);
            let rejected = Dual::variable(model.rejected[pair], 1);
            Matched {
                chosen: pair,
                rejected: pair,
                loss: loss(chosen - rejected + -by_reference[other]),
            }
        })
        .collect()
}

/// AOT of answers by themselves, from the log-probabilities less those of the reference: both kinds are
/// sorted and compared in their order.
pub(super) fn aot_unpaired(ratios: Answered, loss: &dyn Fn(Dual) -> Dual) -> Vec<Matched> {
    let pairs = sorted(ratios.chosen)
        .into_iter()
        .zip(sorted(ratios.rejected));
    pairs
        .map(|(better, worse)| {
            let chosen = Dual::variable(ratios.chosen[better], 0);
            let rejected = Dual::variable(ratios.rejected[worse], 1);
            Matched {
                chosen: better,
                rejected: worse,
                loss: loss(chosen - rejected),
            }
        })
        .collect()
}

/// The indices of the numbers from the lowest on.
fn sorted(numbers: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_in_their_order() {
        let (chosen, rejected) = ([3.0, 1.0], [0.5, 4.0]);
        let model = Answered {
            chosen: &chosen,
            rejected: &rejected,
        };
        let reference = Answered {
            chosen: &[1.0, 0.0],
            rejected: &[0.0, 0.0],
        };
        let plain = |x: Dual| x;
        let found = aot(model, reference, &plain);
        let found: Vec<_> = found.iter().map(|m| (m.chosen, m.loss.value)).collect();
        // Differences 2.5 and -3, those of the reference 1 and 0.
        assert_eq!(found, [(1, -3.0), (0, 1.5)]);
        let found = aot_unpaired(model, &plain);
        let found = found.iter().map(|m| (m.chosen, m.rejected, m.loss.value));
        assert_eq!(found.collect::<Vec<_>>(), [(1, 0, 0.5), (0, 1, -1.0)]);
    }
}
