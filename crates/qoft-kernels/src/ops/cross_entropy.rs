//! Output head and cross-entropy in one operation: the logits never exist as a whole.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::soft_cap::SoftCap;
use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};
use crate::scratch::with_scratch;
use crate::vector::{exp, exp_sum, max};
use crate::weight::{PackedWeight, Tile};
use crate::wide;

/// Rows that are compared with the vocabulary at once.
const ROWS: usize = 256;
/// Tokens whose logits exist at once, and columns of the head that are decoded at once. Both
/// panels and the rows' gradient fit a level-2 cache together.
const BAND: usize = 192;

/// The loss of a head with a weight `W` and a bias `B`: `Σ −log softmax(scale·(h·Wᵀ + bias))[label]`,
/// divided by `denominator`; the logits may be bounded. Rows of h whose label is `None` do not count.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CrossEntropy<W, B> {
    /// The head, `[vocab, in_features]`.
    pub weight: W,
    /// Added to the logits, `[vocab]`.
    pub bias: Option<B>,
    /// Multiplies the logits.
    pub scale: f32,
    /// Bounds the multiplied logits.
    pub soft_cap: Option<SoftCap>,
    /// The token to predict from each row; less than `vocab`.
    pub labels: Arc<Vec<Option<u32>>>,
    /// What the sum is divided by, usually the number of labels.
    pub denominator: f64,
}

impl<W, B> CrossEntropy<W, B> {
    /// The loss of these labels, one for each row of the input. The logits have no bias and are
    /// not scaled, and the sum is not divided.
    pub fn new(weight: W, labels: Arc<Vec<Option<u32>>>) -> Self {
        Self {
            weight,
            bias: None,
            scale: 1.0,
            soft_cap: None,
            labels,
            denominator: 1.0,
        }
    }

    /// The same with a bias of `[vocab]`, or without.
    #[must_use]
    pub fn with_bias(self, bias: Option<B>) -> Self {
        Self { bias, ..self }
    }

    /// The same with logits that are multiplied.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same with bounded logits, or without.
    #[must_use]
    pub fn with_soft_cap(self, soft_cap: Option<SoftCap>) -> Self {
        Self { soft_cap, ..self }
    }

    /// Turns products of a row with the head into its logits.
    #[inline(always)]
    pub(super) fn finish_logits(&self, products: &mut [f32], bias: Option<&[f32]>) {
        if let Some(bias) = bias {
            products.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
        }
        products.iter_mut().for_each(|l| *l *= self.scale);
        if let Some(cap) = self.soft_cap {
            products.iter_mut().for_each(|l| *l = cap.value(*l));
        }
    }

    /// The same with a sum that is divided, usually by the number of labels.
    #[must_use]
    pub fn with_denominator(self, denominator: f64) -> Self {
        Self {
            denominator,
            ..self
        }
    }
}

/// The [`CrossEntropy`] of a head that stays as it is.
///
/// Input: h of `[rows, in_features]`. Output: `[1]`. The gradient of h is computed along with the
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
            .map(|rows| self.part(inputs[0].data, rows, keep))
            .collect();
        let mut grad = vec![0.0; if keep { inputs[0].data.len() } else { 0 }];
        if keep {
            let grads = parts.iter().flat_map(|part| part.grad.chunks_exact(width));
            for (&(row, _), values) in wanted.iter().zip(grads) {
                grad[row * width..][..width].copy_from_slice(values);
            }
        }
        let loss: f64 = parts.iter().flat_map(|part| &part.losses).sum();
        Forward {
            shape: vec![1],
            data: vec![(loss / self.denominator) as f32],
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
        vec![Some(saved.iter().map(|v| v * grad.data[0]).collect())]
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
    /// `Σ e^(logit − max)` of each row.
    sum: Vec<f64>,
    /// The logit of each row's label.
    target: Vec<f32>,
    /// `Σ e^(logit − max) · w` over the tokens' rows w of the head, each times the slope of the bound
    /// of its logit, `[rows, width]`; in the end the gradient.
    grad: Vec<f32>,
    /// In the end the loss of each row.
    losses: Vec<f64>,
}

impl LinearCrossEntropy {
    /// The losses and gradients of `rows` of `h`, given with their labels. As in attention
    /// without a matrix of scores, the largest logit is the one so far, and sums are corrected
    /// when it grows.
    fn part(&self, h: &[f32], rows: &[(usize, usize)], keep: bool) -> Part {
        let [vocab, width] = self.weight.shape();
        let count = rows.len();
        let mut part = Part {
            max: vec![f32::NEG_INFINITY; count],
            sum: vec![0.0; count],
            target: vec![f32::NAN; count],
            grad: vec![0.0; if keep { count * width } else { 0 }],
            losses: Vec::new(),
        };
        let together = gather(h, width, rows.iter().map(|&(row, _)| row));
        with_scratch((count + BAND) * BAND, |scratch| {
            let (panel, logits) = scratch.split_at_mut(BAND * BAND);
            for start in (0..vocab).step_by(BAND) {
                let band = start..(start + BAND).min(vocab);
                self.add_band(&mut part, &together, rows, band, panel, logits);
            }
        });
        for (i, &(_, label)) in rows.iter().enumerate() {
            if keep {
                let grad = &mut part.grad[i * width..][..width];
                self.finish_gradient(grad, part.sum[i], (label, part.target[i]));
            }
            let loss = part.sum[i].ln() + f64::from(part.max[i]) - f64::from(part.target[i]);
            part.losses.push(loss);
        }
        part
    }

    /// Adds the tokens `band` to what was seen.
    fn add_band(
        &self,
        part: &mut Part,
        h: &[f32],
        rows: &[(usize, usize)],
        band: Range<usize>,
        panel: &mut [f32],
        logits: &mut [f32],
    ) {
        let (count, width) = (rows.len(), self.weight.shape()[1]);
        let logits = &mut logits[..count * band.len()];
        let mut steps = |at: usize, product: &mut dyn FnMut(usize, Mat)| {
            let cols = at..(at + BAND).min(width);
            let Tile { data, row_stride } = self.weight.tile(band.clone(), cols.clone(), panel);
            product(
                cols.len(),
                Mat::new(data, band.len(), cols.len(), row_stride),
            );
        };
        for at in (0..width).step_by(BAND) {
            steps(at, &mut |cols, panel| {
                let h = Mat::new(&h[at..], count, cols, width);
                matmul(logits, band.len(), h, panel.t(), at > 0);
            });
        }
        for (i, logits) in logits.chunks_exact_mut(band.len()).enumerate() {
            self.add_logits(part, i, rows[i].1, band.clone(), logits);
        }
        if part.grad.is_empty() {
            return;
        }
        let powers = Mat::new(logits, count, band.len(), band.len());
        for at in (0..width).step_by(BAND) {
            steps(at, &mut |_, panel| {
                matmul(&mut part.grad[at..], width, powers, panel, true);
            });
        }
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
    ) {
        wide!({
            self.finish_logits(logits, self.bias.as_ref().map(|b| &b[band.clone()]));
            let slopes = self.soft_cap.map(|cap| {
                let mut slopes = [0.0; BAND];
                let pairs = slopes.iter_mut().zip(&*logits);
                pairs.for_each(|(slope, &l)| *slope = cap.slope(l));
                slopes
            });
            if band.contains(&label) {
                part.target[i] = logits[label - band.start];
            }
            let largest = max(logits);
            if largest > part.max[i] {
                let factor = exp(part.max[i] - largest);
                part.max[i] = largest;
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

    /// From the weighted sum of the head's rows to the gradient of a row of h, with its label and the
    /// logit of that.
    fn finish_gradient(&self, grad: &mut [f32], sum: f64, (label, logit): (usize, f32)) {
        let factor = f64::from(self.scale) / self.denominator;
        let normalize = (factor / sum) as f32;
        let slope = self.soft_cap.map_or(1.0, |cap| cap.slope(logit));
        let factor = factor as f32 * slope;
        with_scratch(grad.len(), |target| {
            self.weight
                .decode_tile(label..label + 1, 0..grad.len(), target);
            for (grad, target) in grad.iter_mut().zip(target.iter()) {
                *grad = *grad * normalize - factor * target;
            }
        });
    }
}

#[cfg(test)]
mod tests {
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
