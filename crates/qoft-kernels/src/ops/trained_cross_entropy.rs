//! Output head and cross-entropy in one operation, for a head that trains or is not packed.

use std::sync::Arc;

use rayon::prelude::*;

use super::cross_entropy::gather;
use super::dense_matmul::add_outer;
use super::head_loss::{CrossEntropy, Groups};
use super::packed_matmul::packed_matmul;
use crate::dense::DenseView;
use crate::op::{Forward, HostOp, HostView};
use crate::vector::{exp_sum, max};
use crate::weight::PackedWeight;
use crate::wide;

/// Logits that exist at once, at most: 32 MiB of them.
const LOGITS: usize = 8 << 20;

/// A part of the head: one that stays as it is, or one that is an input of the operation.
#[derive(Debug, Clone)]
pub enum Operand<T> {
    /// Known to the operation.
    Fixed(T),
    /// An input.
    Input {
        /// Whether its gradient is computed.
        trains: bool,
    },
}

impl<T> Operand<T> {
    fn trains(&self) -> bool {
        matches!(self, Self::Input { trains: true })
    }
}

/// The [`CrossEntropy`] of a head whose weight or bias is an input and may train. Their gradients need
/// the probabilities themselves, so the logits of some rows exist as a whole.
///
/// Inputs: h of `[rows, in_features]`; then the weight of `[vocab, in_features]` and the bias of
/// `[1, vocab]`, where these are inputs. Gradients are computed along with the loss of one group of rows;
/// of several groups they are computed in the backward, where the weight of each is known.
pub type TrainedCrossEntropy = CrossEntropy<Operand<Arc<dyn PackedWeight>>, Operand<Arc<Vec<f32>>>>;

impl HostOp for TrainedCrossEntropy {
    fn forward(&self, inputs: &[HostView], keep: bool) -> Forward {
        let at_once = keep && self.groups == Groups::One;
        let pass = self.pass(inputs, at_once.then_some(&[1.0][..]));
        Forward {
            shape: vec![2 * self.groups.count()],
            data: self.output(pass.losses.into_iter()),
            saved: pass.gradients.concat(),
        }
    }

    fn reads(&self, _index: usize) -> bool {
        self.groups != Groups::One
    }

    fn backward(
        &self,
        inputs: &[HostView],
        saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        // h, the weight and the bias, the latter two if they train.
        let operands = [
            matches!(self.weight, Operand::Input { .. }).then(|| self.weight.trains()),
            match &self.bias {
                Some(bias @ Operand::Input { .. }) => Some(bias.trains()),
                _ => None,
            },
        ];
        let trains = std::iter::once(true).chain(operands.into_iter().flatten());
        if self.groups != Groups::One {
            let pass = self.pass(inputs, Some(grad.data));
            let [h, weight, bias] = pass.gradients;
            let mut of_inputs = vec![h];
            of_inputs.extend(matches!(self.weight, Operand::Input { .. }).then_some(weight));
            of_inputs.extend(matches!(self.bias, Some(Operand::Input { .. })).then_some(bias));
            let parts = of_inputs.into_iter().zip(trains).zip(wants);
            return parts
                .map(|((values, trains), &wants)| (trains && wants).then_some(values))
                .collect();
        }
        let mut rest = saved;
        let parts = inputs.iter().zip(trains).zip(wants);
        let parts = parts.map(|((input, trains), &wants)| {
            let size = input.shape.iter().product();
            let (values, left) = rest.split_at(if trains { size } else { 0 });
            rest = left;
            let scaled = || values.iter().map(|v| v * grad.data[0]).collect();
            (trains && wants).then(scaled)
        });
        parts.collect()
    }
}

/// What one pass over the rows gives.
struct Losses {
    /// Each row that counts, with its loss and whether its label has the largest logit.
    losses: Vec<(usize, f64, bool)>,
    /// Those of h, the weight and the bias; empty for what does not train.
    gradients: [Vec<f32>; 3],
}

impl TrainedCrossEntropy {
    /// The losses, and with `factors` for the groups the gradients.
    fn pass(&self, inputs: &[HostView], factors: Option<&[f32]>) -> Losses {
        let keep = factors.is_some();
        let mut others = inputs[1..].iter();
        let view;
        let weight: &dyn PackedWeight = match &self.weight {
            Operand::Fixed(weight) => &**weight,
            Operand::Input { .. } => {
                let input = others.next().expect("the weight is an input");
                view = DenseView::new(input.data, [input.shape[0], input.shape[1]]);
                &view
            }
        };
        let bias = self.bias.as_ref().map(|bias| match bias {
            Operand::Fixed(bias) => bias.as_slice(),
            Operand::Input { .. } => others.next().expect("the bias is an input").data,
        });
        let [vocab, width] = weight.shape();
        let (rows, _) = inputs[0].rows();
        assert_eq!(rows, self.labels.len(), "one label for each row");
        // Only rows that predict something are worth their logits.
        let wanted: Vec<usize> = (0..rows)
            .filter(|&row| self.labels[row].is_some())
            .collect();
        let size = |wanted: bool, size: usize| if keep && wanted { size } else { 0 };
        let mut grad = vec![0.0; size(true, inputs[0].data.len())];
        let mut weight_grad = vec![0.0; size(self.weight.trains(), vocab * width)];
        let trained_bias = self.bias.as_ref().is_some_and(Operand::trains);
        let mut bias_grad = vec![0.0; size(trained_bias, vocab)];
        let mut losses = Vec::with_capacity(wanted.len());
        for rows in wanted.chunks((LOGITS / vocab).max(1)) {
            let h = gather(inputs[0].data, width, rows.iter().copied());
            let mut logits = packed_matmul(&h, weight, false);
            let found: Vec<(usize, f64, bool)> = logits
                .par_chunks_exact_mut(vocab)
                .zip(rows)
                .map(|(logits, &row)| {
                    let factor = factors.map_or(1.0, |factors| factors[self.groups.of(row)]);
                    let label = self.labels[row].expect("wanted");
                    let (loss, is_right) = self.row(logits, bias, label, factor);
                    (row, loss, is_right)
                })
                .collect();
            losses.extend(found);
            if keep {
                let dh = packed_matmul(&logits, weight, true);
                for (&row, dh) in rows.iter().zip(dh.chunks_exact(width)) {
                    grad[row * width..][..width].copy_from_slice(dh);
                }
            }
            if !weight_grad.is_empty() {
                add_outer(&mut weight_grad, &logits, &h, vocab);
            }
            if !bias_grad.is_empty() {
                for logits in logits.chunks_exact(vocab) {
                    bias_grad.iter_mut().zip(logits).for_each(|(b, l)| *b += l);
                }
            }
        }
        Losses {
            losses,
            gradients: [grad, weight_grad, bias_grad],
        }
    }

    /// The loss of one row, and whether its label has the largest logit; turns its logits into their
    /// gradient, times a factor.
    fn row(
        &self,
        logits: &mut [f32],
        bias: Option<&[f32]>,
        label: u32,
        factor: f32,
    ) -> (f64, bool) {
        wide!({
            self.finish_logits(logits, bias);
            let slopes = self.soft_cap.map(|cap| {
                let slopes = logits.iter().map(|&l| cap.slope(l));
                slopes.collect::<Vec<f32>>()
            });
            let (target, max) = (logits[label as usize], max(logits));
            // Of equal ones the first is what a model says.
            let is_best = target >= max && !logits[..label as usize].contains(&max);
            let mean = match self.smoothing {
                0.0 => 0.0,
                _ => {
                    let total: f64 = logits.iter().map(|&l| f64::from(l)).sum();
                    total / logits.len() as f64
                }
            };
            // Parts of the sum are few enough terms for f32.
            let parts = logits.chunks_mut(1024);
            let sum: f64 = parts.map(|part| f64::from(exp_sum(part, 1.0, max))).sum();
            let factor = f64::from(self.scale) * f64::from(factor) / self.denominator;
            let normalize = (factor / sum) as f32;
            logits.iter_mut().for_each(|l| *l *= normalize);
            logits[label as usize] -= (factor * (1.0 - self.smoothing)) as f32;
            if self.smoothing > 0.0 {
                let share = (factor * self.smoothing / logits.len() as f64) as f32;
                logits.iter_mut().for_each(|l| *l -= share);
            }
            if let Some(slopes) = &slopes {
                logits.iter_mut().zip(slopes).for_each(|(l, s)| *l *= s);
            }
            let log_sum = sum.ln() + f64::from(max);
            let loss = self.loss(log_sum, target.into(), mean);
            (loss, is_best)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::soft_cap::SoftCap;
    use super::super::testing::{check_gradients, random};
    use super::*;
    use crate::DenseWeight;

    fn fixed(values: &[f32], shape: [usize; 2]) -> Operand<Arc<dyn PackedWeight>> {
        Operand::Fixed(Arc::new(DenseWeight::from_f32(values, shape)))
    }

    fn op(labels: Vec<Option<u32>>) -> TrainedCrossEntropy {
        TrainedCrossEntropy {
            weight: fixed(&random(7 * 4, 1), [7, 4]),
            bias: Some(Operand::Fixed(Arc::new(random(7, 2)))),
            scale: 1.3,
            soft_cap: None,
            labels: Arc::new(labels),
            groups: Groups::One,
            smoothing: 0.0,
            denominator: 2.0,
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(
            &op(vec![Some(6), None, Some(0)]),
            &[(vec![3, 4], random(12, 3))],
        );
        let capped = op(vec![Some(6), Some(2), Some(0)]).with_soft_cap(Some(SoftCap::new(0.8)));
        check_gradients(&capped, &[(vec![3, 4], random(12, 3))]);
    }

    #[test]
    fn gradients_of_a_head_that_trains_equal_finite_differences() {
        let input = || Operand::Input { trains: true };
        let labels = vec![Some(6), None, Some(0)];
        let h = (vec![3, 4], random(12, 3));
        let weight = (vec![7, 4], random(28, 4));
        let bias = (vec![1, 7], random(7, 5));
        let fixed = op(labels.clone());
        let with_weight = TrainedCrossEntropy {
            weight: Operand::Input { trains: true },
            ..fixed.clone()
        };
        check_gradients(&with_weight, &[h.clone(), weight.clone()]);
        let with_bias = TrainedCrossEntropy {
            bias: Some(input()),
            ..fixed
        };
        check_gradients(&with_bias, &[h.clone(), bias.clone()]);
        let both = TrainedCrossEntropy {
            bias: Some(input()),
            ..with_weight
        };
        check_gradients(&both, &[h.clone(), weight.clone(), bias.clone()]);
        let grouped = both.clone().with_smoothing(0.2);
        let grouped = grouped.with_groups(Groups::Several {
            of_rows: Arc::new(vec![1, 0, 0]),
            count: 2,
        });
        check_gradients(&grouped, &[h.clone(), weight.clone(), bias.clone()]);

        let frozen = TrainedCrossEntropy {
            weight: Operand::Input { trains: false },
            ..both
        };
        let views = [&h, &weight, &bias].map(|(s, d)| HostView::new(s, d));
        let forward = frozen.forward(&views, true);
        let grad = HostView::new(&[1], &[1.0]);
        let grads = frozen.backward(&views, &forward.saved, grad, &[true; 3]);
        assert_eq!(grads[1], None);
        assert_eq!(grads[2].as_ref().map(Vec::len), Some(7));
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let op = TrainedCrossEntropy {
            weight: fixed(&[0.0; 12], [6, 2]),
            bias: None,
            ..op(vec![Some(1), Some(5)])
        };
        let loss = op.forward(&[HostView::new(&[2, 2], &[1.0; 4])], false).data[0];
        assert!((loss - 6f32.ln()).abs() < 1e-6);
    }
}
