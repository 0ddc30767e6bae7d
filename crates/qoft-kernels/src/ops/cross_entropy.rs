//! Output head and cross-entropy in one operation: the logits never exist as a whole.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::factor::Factor;
use super::head_loss::CrossEntropy;
use crate::compute::ComputeDtype;
use crate::gemm::{Mat, MatMut, Pair, Unit, blocked};
use crate::op::{Forward, HostOp, HostView};
use crate::scratch::with_scratch;
use crate::vector::{exp, exp_sum, max};
use crate::weight::PackedWeight;
use crate::wide;

/// Rows that are compared with the vocabulary at once.
const ROWS: usize = 256;
/// Tokens whose logits exist at once: they and the rows' gradient fit a level-2 cache together.
const BAND: usize = 192;

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
        // Rows have nothing to do with each other, so that threads change no result.
        let chunk = wanted.len().div_ceil(rayon::current_num_threads());
        let parts: Vec<Part> = wanted
            .par_chunks(chunk.clamp(1, ROWS))
            .map(|rows| match self.weight.compute_dtype() {
                ComputeDtype::F32 => self.part::<f32>(inputs[0].data, rows, keep),
                ComputeDtype::Bf16 => self.part::<Pair>(inputs[0].data, rows, keep),
            })
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

/// Some rows and the part of the vocabulary that was seen.
struct Part {
    /// The largest logit of each row.
    max: Vec<f32>,
    /// The token that has it, of several the first.
    best: Vec<usize>,
    /// `Σ e^(logit − max)` of each row.
    sum: Vec<f64>,
    /// The logit of each row's label.
    target: Vec<f32>,
    /// `Σ e^(logit − max) · w` over the tokens' rows w of the head, each times the slope of the bound
    /// of its logit, `[rows, width]`; in the end the gradient.
    grad: Vec<f32>,
    /// The sum of the logits of each row, where labels are smoothed.
    total: Vec<f64>,
    /// `Σ w` over the rows w of the head, each times the slope of the bound of its logit, `[rows, width]`,
    /// where labels are smoothed.
    flat: Vec<f32>,
    /// In the end the loss of each row, and whether its label is the best token.
    losses: Vec<(f64, bool)>,
}

impl LinearCrossEntropy {
    /// The losses and gradients of `rows` of `h`, given with their labels. As in attention
    /// without a matrix of scores, the largest logit is the one so far, and sums are corrected
    /// when it grows.
    fn part<E: Unit>(&self, h: &[f32], rows: &[(usize, usize)], keep: bool) -> Part {
        let [vocab, width] = self.weight.shape();
        let count = rows.len();
        let mut part = Part {
            max: vec![f32::NEG_INFINITY; count],
            best: vec![usize::MAX; count],
            sum: vec![0.0; count],
            target: vec![f32::NAN; count],
            grad: vec![0.0; if keep { count * width } else { 0 }],
            total: vec![0.0; count],
            flat: vec![
                0.0;
                if keep && self.smoothing > 0.0 {
                    count * width
                } else {
                    0
                }
            ],
            losses: Vec::new(),
        };
        let together = gather(h, width, rows.iter().map(|&(row, _)| row));
        let together = Mat::new(&together, count, width, width);
        with_scratch(count * (width + 2 * BAND), |scratch| {
            let (near, rest) = scratch.split_at_mut(count * width);
            let (near_powers, logits) = rest.split_at_mut(count * BAND);
            let [near, near_powers] = [near, near_powers].map(bytemuck::cast_slice_mut);
            let together = E::of(together, near);
            for start in (0..vocab).step_by(BAND) {
                let band = start..(start + BAND).min(vocab);
                self.add_band(&mut part, together, rows, band, near_powers, logits);
            }
        });
        for (i, &(_, label)) in rows.iter().enumerate() {
            if keep {
                let grad = &mut part.grad[i * width..][..width];
                let flat = part.flat.chunks_exact(width).nth(i).unwrap_or_default();
                self.finish_gradient(grad, flat, part.sum[i], (label, part.target[i]));
            }
            let log_sum = part.sum[i].ln() + f64::from(part.max[i]);
            let mean = part.total[i] / vocab as f64;
            let loss = self.loss(log_sum, part.target[i].into(), mean);
            part.losses.push((loss, part.best[i] == label));
        }
        part
    }

    /// Adds the tokens `band` to what was seen by rows `h`.
    fn add_band<E: Unit>(
        &self,
        part: &mut Part,
        h: Mat<E>,
        rows: &[(usize, usize)],
        band: Range<usize>,
        near: &mut [E],
        logits: &mut [f32],
    ) {
        let (count, width) = (rows.len(), self.weight.shape()[1]);
        let logits = &mut logits[..count * band.len()];
        let head = Factor::new(&*self.weight, false);
        let c = MatMut::new(logits, count, band.len(), band.len());
        // SAFETY: the logits are borrowed exclusively.
        unsafe { blocked(c, h, &head, band.start, false) }
        let mut slopes = match part.flat.is_empty() {
            true => Vec::new(),
            false => vec![1.0; logits.len()],
        };
        for (i, logits) in logits.chunks_exact_mut(band.len()).enumerate() {
            let slopes = slopes.chunks_exact_mut(band.len()).nth(i);
            self.add_logits(part, i, rows[i].1, band.clone(), logits, slopes);
        }
        let head = Factor::new(&*self.weight, true).rows(band.clone());
        let mut add = |sums: &mut [f32], factors: &[f32]| {
            if sums.is_empty() {
                return;
            }
            let factors = E::of(Mat::new(factors, count, band.len(), band.len()), near);
            let sums = MatMut::new(sums, count, width, width);
            // SAFETY: the sums are borrowed exclusively.
            unsafe { blocked(sums, factors, &head, 0, true) }
        };
        add(&mut part.flat, &slopes);
        add(&mut part.grad, logits);
    }

    /// Adds the products of row `i` with a band of the head, and turns them into the powers of
    /// which its gradient is made.
    fn add_logits(
        &self,
        part: &mut Part,
        i: usize,
        label: usize,
        band: Range<usize>,
        logits: &mut [f32],
        kept_slopes: Option<&mut [f32]>,
    ) {
        wide!({
            self.finish_logits(logits, self.bias.as_ref().map(|b| &b[band.clone()]));
            if self.smoothing > 0.0 {
                part.total[i] += logits.iter().map(|&l| f64::from(l)).sum::<f64>();
            }
            let slopes = self.soft_cap.map(|cap| {
                let mut slopes = [0.0; BAND];
                let pairs = slopes.iter_mut().zip(&*logits);
                pairs.for_each(|(slope, &l)| *slope = cap.slope(l));
                slopes
            });
            if let (Some(kept), Some(slopes)) = (kept_slopes, &slopes) {
                kept.copy_from_slice(&slopes[..band.len()]);
            }
            if band.contains(&label) {
                part.target[i] = logits[label - band.start];
            }
            let largest = max(logits);
            if largest > part.max[i] {
                let factor = exp(part.max[i] - largest);
                part.max[i] = largest;
                let first = logits.iter().position(|&l| l == largest);
                part.best[i] = band.start + first.unwrap_or_default();
                part.sum[i] *= f64::from(factor);
                let width = part.grad.len() / part.max.len();
                let grad = &mut part.grad[i * width..][..width];
                grad.iter_mut().for_each(|g| *g *= factor);
            }
            part.sum[i] += f64::from(exp_sum(logits, 1.0, part.max[i]));
            if let Some(slopes) = &slopes {
                logits.iter_mut().zip(slopes).for_each(|(l, s)| *l *= s);
            }
        });
    }

    /// From the weighted sum of the head's rows, and where labels are smoothed the sum of them all, to
    /// the gradient of a row of h, with its label and the logit of that.
    fn finish_gradient(
        &self,
        grad: &mut [f32],
        flat: &[f32],
        sum: f64,
        (label, logit): (usize, f32),
    ) {
        let factor = f64::from(self.scale) / self.denominator;
        let normalize = (factor / sum) as f32;
        let slope = self.soft_cap.map_or(1.0, |cap| cap.slope(logit));
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
    use crate::DenseWeight;

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
