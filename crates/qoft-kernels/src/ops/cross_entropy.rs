//! Output head and cross-entropy in one operation: the logits never exist as a whole.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::factor::Factor;
use super::head_loss::CrossEntropy;
use super::many_rows::{Activations, product_into};
use crate::gemm::{Mat, MatMut};
use crate::op::{Forward, HostOp, HostView};
use crate::scratch::with_scratch;
use crate::vector::{exp, exp_sum, max};
use crate::weight::PackedWeight;
use crate::wide;

/// Rows that are compared with the vocabulary at once, and tokens: as many logits exist.
const ROWS: usize = 2048;
const BAND: usize = 768;
/// Powers that are added up in `f32`.
const SUM: usize = 192;

/// The [`CrossEntropy`] of a head that stays as it is.
///
/// Input: h of `[rows, in_features]`. The gradient of h is computed along with the
/// loss.
pub type LinearCrossEntropy = CrossEntropy<Arc<dyn PackedWeight>, Arc<Vec<f32>>>;

impl HostOp for LinearCrossEntropy {
    fn forward(&self, inputs: &[HostView], keep: bool) -> Forward {
        let [_, width] = self.weight.shape();
        let (rows, _) = inputs[0].rows();
        assert_eq!(rows, self.labels.len(), "one label for each row");
        // Only rows that predict something are worth their logits.
        let label = |row: usize| self.labels[row].map(|label| (row, label as usize));
        let wanted: Vec<(usize, usize)> = (0..rows).filter_map(label).collect();
        let parts = wanted.chunks(ROWS);
        let parts: Vec<Part> = parts
            .map(|rows| self.part(inputs[0].data, rows, keep))
            .collect();
        let mut grad = vec![0.0; if keep { inputs[0].data.len() } else { 0 }];
        if keep {
            let grads = parts.iter().flat_map(|part| part.grad.chunks_exact(width));
            for (&(row, _), values) in wanted.iter().zip(grads) {
                grad[row * width..][..width].copy_from_slice(values);
            }
        }
        let results = parts.iter().flat_map(|part| &part.losses);
        let results = wanted.iter().zip(results);
        let results = results.map(|(&(row, _), &(loss, is_right))| (row, loss, is_right));
        Forward {
            shape: vec![2 * self.groups.count()],
            data: self.output(results),
            saved: grad,
        }
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let [_, width] = self.weight.shape();
        let rows = saved.chunks_exact(width).enumerate();
        let scaled = rows.flat_map(|(row, values)| {
            let factor = grad.data[self.groups.of(row)];
            values.iter().map(move |v| v * factor)
        });
        vec![Some(scaled.collect())]
    }
}

/// Some rows of `h`, one after another.
pub(super) fn gather(h: &[f32], width: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut together = Vec::with_capacity(rows.size_hint().0 * width);
    for row in rows {
        together.extend_from_slice(&h[row * width..][..width]);
    }
    together
}

/// What each of `count` rows has of some values, which may be nothing.
fn of_rows(values: &mut [f32], count: usize) -> impl Iterator<Item = &mut [f32]> {
    let width = values.len() / count.max(1);
    let (mut rest, mut left) = (values, count);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let (row, behind) = std::mem::take(&mut rest).split_at_mut(width);
        rest = behind;
        Some(row)
    })
}

/// A row and the part of the vocabulary that was seen.
#[derive(Clone)]
struct Row {
    /// The largest logit.
    max: f32,
    /// The token that has it, of several the first.
    best: usize,
    /// `Σ e^(logit − max)`
    sum: f64,
    label: usize,
    /// The logit of the label.
    target: f32,
    /// The sum of the logits, where labels are smoothed.
    total: f64,
}

/// What came out of some rows.
struct Part {
    /// The loss of each row, and whether its label is the best token.
    losses: Vec<(f64, bool)>,
    /// The gradient, `[rows, width]`, or nothing.
    grad: Vec<f32>,
}

impl LinearCrossEntropy {
    /// The losses and gradients of `rows` of `h`, given with their labels. As in attention
    /// without a matrix of scores, the largest logit is the one so far, and sums are corrected
    /// when it grows. Threads share each product, so that all of them together decode the head twice.
    fn part(&self, h: &[f32], rows: &[(usize, usize)], keep: bool) -> Part {
        let [vocab, width] = self.weight.shape();
        let (count, smoothed) = (rows.len(), self.smoothing > 0.0);
        let state = |&(_, label): &(usize, usize)| Row {
            max: f32::NEG_INFINITY,
            best: usize::MAX,
            sum: 0.0,
            label,
            target: f32::NAN,
            total: 0.0,
        };
        let mut states: Vec<Row> = rows.iter().map(state).collect();
        // `Σ e^(logit − max) · w` over the tokens' rows w of the head, and where labels are smoothed `Σ w`, each
        // times the slope of the bound of its logit.
        let mut grad = vec![0.0; if keep { count * width } else { 0 }];
        let mut flat = vec![0.0; if smoothed { grad.len() } else { 0 }];
        let h = gather(h, width, rows.iter().map(|&(row, _)| row));
        let dtype = self.weight.compute_dtype();
        let (mut near_h, mut near) = (Vec::new(), Vec::new());
        let h = Activations::new(Mat::new(&h, count, width, width), dtype, &mut near_h);
        let mut logits = vec![0.0; count * BAND.min(vocab)];
        let mut slopes = vec![0.0; if flat.is_empty() { 0 } else { logits.len() }];
        for start in (0..vocab).step_by(BAND) {
            let band = start..(start + BAND).min(vocab);
            let wide = band.len();
            let logits = &mut logits[..count * wide];
            let c = MatMut::new(logits, count, wide, wide);
            let head = Factor::of_rows(&*self.weight, false, band.clone());
            // SAFETY: the logits are borrowed exclusively.
            unsafe { product_into(c, &h, head, false) }
            let slopes_here = slopes.len().min(logits.len());
            let slopes = &mut slopes[..slopes_here];
            let each = states.iter_mut().zip(logits.chunks_exact_mut(wide));
            let each = each.zip(of_rows(slopes, count).zip(of_rows(&mut grad, count)));
            let each: Vec<_> = each.collect();
            each.into_par_iter()
                .for_each(|((row, logits), (slopes, grad))| {
                    self.add_logits(row, band.clone(), logits, slopes, grad);
                });
            let head = Factor::of_rows(&*self.weight, true, band);
            let mut add = |sums: &mut [f32], factors: &[f32]| {
                if sums.is_empty() {
                    return;
                }
                let factors = Mat::new(factors, count, wide, wide);
                let factors = Activations::new(factors, dtype, &mut near);
                let sums = MatMut::new(sums, count, width, width);
                // SAFETY: the sums are borrowed exclusively.
                unsafe { product_into(sums, &factors, head, true) }
            };
            add(&mut flat, slopes);
            add(&mut grad, logits);
        }
        let each = states.iter().zip(of_rows(&mut grad, count));
        let each: Vec<_> = each.zip(of_rows(&mut flat, count)).collect();
        let losses = each.into_par_iter().map(|((row, grad), flat)| {
            self.finish_gradient(row, grad, flat);
            let log_sum = row.sum.ln() + f64::from(row.max);
            let mean = row.total / vocab as f64;
            let loss = self.loss(log_sum, row.target.into(), mean);
            (loss, row.best == row.label)
        });
        Part {
            losses: losses.collect(),
            grad,
        }
    }

    /// Adds the products of a row with a band of the head, and turns them into the powers of
    /// which its gradient is made; `slopes` gets those of the bounds of the logits, if it has room.
    fn add_logits(
        &self,
        row: &mut Row,
        band: Range<usize>,
        logits: &mut [f32],
        kept_slopes: &mut [f32],
        grad: &mut [f32],
    ) {
        wide!({
            self.finish_logits(logits, self.bias.as_ref().map(|b| &b[band.clone()]));
            if self.smoothing > 0.0 {
                row.total += logits.iter().map(|&l| f64::from(l)).sum::<f64>();
            }
            if band.contains(&row.label) {
                row.target = logits[row.label - band.start];
            }
            kept_slopes.fill(1.0);
            let largest = max(logits);
            let slopes = self.soft_cap.map(|cap| {
                let mut slopes = [0.0; BAND];
                let pairs = slopes.iter_mut().zip(&*logits);
                pairs.for_each(|(slope, &l)| *slope = cap.slope(l));
                slopes
            });
            if let Some(slopes) = &slopes {
                let pairs = kept_slopes.iter_mut().zip(slopes);
                pairs.for_each(|(kept, slope)| *kept = *slope);
            }
            if largest > row.max {
                let factor = exp(row.max - largest);
                row.max = largest;
                let first = logits.iter().position(|&l| l == largest);
                row.best = band.start + first.unwrap_or_default();
                row.sum *= f64::from(factor);
                grad.iter_mut().for_each(|g| *g *= factor);
            }
            for logits in logits.chunks_mut(SUM) {
                row.sum += f64::from(exp_sum(logits, 1.0, row.max));
            }
            if let Some(slopes) = &slopes {
                logits.iter_mut().zip(slopes).for_each(|(l, s)| *l *= s);
            }
        });
    }

    /// From the weighted sum of the head's rows, and where labels are smoothed the sum of them all, to
    /// the gradient of a row of h. Without room for it, nothing.
    fn finish_gradient(&self, row: &Row, grad: &mut [f32], flat: &[f32]) {
        if grad.is_empty() {
            return;
        }
        let label = row.label;
        let factor = f64::from(self.scale) / self.denominator;
        let normalize = (factor / row.sum) as f32;
        let slope = self.soft_cap.map_or(1.0, |cap| cap.slope(row.target));
        let share = self.smoothing / self.weight.shape()[0] as f64;
        let share = (factor * share) as f32;
        let factor = (factor * (1.0 - self.smoothing)) as f32 * slope;
        with_scratch(grad.len(), |target| {
            self.weight
                .decode_tile(label..label + 1, 0..grad.len(), target);
            for (grad, target) in grad.iter_mut().zip(target.iter()) {
                *grad = *grad * normalize - factor * target;
            }
        });
        for (grad, flat) in grad.iter_mut().zip(flat) {
            *grad -= share * flat;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::head_loss::Groups;
    use super::super::soft_cap::SoftCap;
    use super::super::testing::{check_gradients, random};
    use super::*;
    use crate::{ComputeDtype, DenseWeight, computed_in};

    fn op(labels: Vec<Option<u32>>) -> LinearCrossEntropy {
        LinearCrossEntropy {
            weight: Arc::new(DenseWeight::from_f32(&random(7 * 4, 1), [7, 4])),
            bias: Some(Arc::new(random(7, 2))),
            scale: 1.3,
            soft_cap: None,
            labels: Arc::new(labels),
            groups: Groups::One,
            smoothing: 0.0,
            denominator: 2.0,
        }
    }

    /// Groups of rows, of which one is empty.
    fn grouped(op: LinearCrossEntropy) -> LinearCrossEntropy {
        op.with_groups(Groups::Several {
            of_rows: Arc::new(vec![2, 0, 2, 0]),
            count: 3,
        })
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(
            &op(vec![Some(6), None, Some(0)]),
            &[(vec![3, 4], random(12, 3))],
        );
        let capped = op(vec![Some(6), Some(2), Some(0)]).with_soft_cap(Some(SoftCap::new(0.8)));
        check_gradients(&capped, &[(vec![3, 4], random(12, 3))]);
        let smoothed = capped.with_smoothing(0.3);
        check_gradients(&smoothed, &[(vec![3, 4], random(12, 3))]);
        let groups = grouped(op(vec![Some(6), Some(2), Some(0), None])).with_smoothing(0.3);
        check_gradients(&groups, &[(vec![4, 4], random(16, 3))]);
    }

    #[test]
    fn groups_are_summed_up_by_themselves_and_right_rows_are_counted() {
        let (h, labels) = (random(16, 3), [Some(6), Some(2), Some(0), Some(5)]);
        let of = |op: &LinearCrossEntropy, rows: usize| {
            op.forward(&[HostView::new(&[rows, 4], &h[..rows * 4])], false)
        };
        let single = |row: usize| {
            let op = op(vec![labels[row]]);
            let out = op.forward(&[HostView::new(&[1, 4], &h[row * 4..][..4])], false);
            (out.data[0], out.data[1])
        };
        let together = of(&grouped(op(labels.to_vec())), 4);
        assert_eq!(together.shape, [6]);
        let rows: Vec<(f32, f32)> = (0..4).map(single).collect();
        let expected = [rows[1].0 + rows[3].0, 0.0, rows[0].0 + rows[2].0];
        for (found, expected) in together.data.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
        let right: f32 = rows.iter().map(|(_, right)| right).sum();
        assert_eq!(together.data[3..].iter().sum::<f32>(), right);
        // Some label of each row has the largest logit, and all others have not.
        let right = (0..7).map(|label| of(&op(vec![Some(label)]), 1).data[1]);
        assert_eq!(right.sum::<f32>(), 1.0);
        // Of equal logits the first is what a model says.
        let equal = |label| LinearCrossEntropy {
            weight: Arc::new(DenseWeight::from_f32(&[0.5; 28], [7, 4])),
            bias: None,
            ..op(vec![Some(label)])
        };
        let right = (0..7).map(|label| of(&equal(label), 1).data[1]);
        assert_eq!(
            right.collect::<Vec<_>>(),
            [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        );
    }

    /// More tokens, columns and rows than one panel has, against the definition.
    #[test]
    fn large_heads_equal_the_definition() {
        let (vocab, width, rows) = (2 * BAND + 70, BAND + 8, ROWS + 3);
        let (w, h) = (random(vocab * width, 4), random(rows * width, 5));
        let op = LinearCrossEntropy {
            weight: Arc::new(DenseWeight::from_f32(&w, [vocab, width])),
            bias: None,
            scale: 0.7,
            soft_cap: None,
            labels: Arc::new((0..rows).map(|i| Some((i * 7 % vocab) as u32)).collect()),
            groups: Groups::One,
            smoothing: 0.0,
            denominator: rows as f64,
        };
        let out = op.forward(&[HostView::new(&[rows, width], &h)], true);
        let mut expected = 0.0;
        for (i, h) in h.chunks_exact(width).enumerate() {
            let logit = |w: &[f32]| {
                let terms = h.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b));
                0.7 * terms.sum::<f64>()
            };
            let logits: Vec<f64> = w.chunks_exact(width).map(logit).collect();
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            let label = i * 7 % vocab;
            expected += (sum.ln() - logits[label]) / rows as f64;
            for k in [0, width - 1] {
                let mean = (0..vocab).map(|v| logits[v].exp() / sum * f64::from(w[v * width + k]));
                let mean = mean.sum::<f64>() - f64::from(w[label * width + k]);
                let grad = f64::from(out.saved[i * width + k]);
                assert!((grad - 0.7 * mean / rows as f64).abs() < 1e-7);
            }
        }
        assert!((f64::from(out.data[0]) - expected).abs() < 1e-5);
        let eval = op.forward(&[HostView::new(&[rows, width], &h)], false);
        assert_eq!((eval.data, eval.saved.len()), (out.data, 0));
    }

    /// Threads share products, and a row's loss is the same beside any other rows.
    #[test]
    fn bytes_depend_on_neither_threads_nor_rows() {
        let (vocab, width, rows) = (BAND + 70, 200, 150);
        let h = random(rows * width, 5);
        let of = |rows: Range<usize>, threads: usize, dtype: ComputeDtype| {
            let weight = DenseWeight::from_f32(&random(vocab * width, 4), [vocab, width]);
            let labels = rows.clone().map(|row| Some((row * 7 % vocab) as u32));
            let groups = Groups::Several {
                of_rows: Arc::new((0..rows.len() as u32).collect()),
                count: rows.len(),
            };
            let op = LinearCrossEntropy {
                weight: computed_in(Arc::new(weight), dtype),
                bias: None,
                ..op(labels.collect())
            };
            let op = op.with_groups(groups);
            let h = &h[rows.start * width..rows.end * width];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            let shape = [rows.len(), width];
            let out = pool.install(|| op.forward(&[HostView::new(&shape, h)], true));
            (out.data[..rows.len()].to_vec(), out.saved)
        };
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
            let (losses, grad) = of(0..rows, 1, dtype);
            for threads in [2, 3, 7] {
                assert!(of(0..rows, threads, dtype) == (losses.clone(), grad.clone()));
            }
            let (part, of_part) = of(40..140, 2, dtype);
            assert!(part == losses[40..140] && of_part == grad[40 * width..140 * width]);
        }
        let (one, _) = of(7..8, 2, ComputeDtype::F32);
        assert_eq!(one[0], of(0..rows, 2, ComputeDtype::F32).0[7]);
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let op = LinearCrossEntropy {
            weight: Arc::new(DenseWeight::from_f32(&[0.0; 12], [6, 2])),
            bias: None,
            ..op(vec![Some(1), Some(5)])
        };
        let loss = op.forward(&[HostView::new(&[2, 2], &[1.0; 4])], false).data[0];
        assert!((loss - 6f32.ln()).abs() < 1e-6);
    }
}
