//! Output head and cross-entropy in one operation: the logits never exist as a whole.

use std::sync::Arc;

use pulp::Arch;
use rayon::prelude::*;

use super::packed_matmul::packed_matmul;
use crate::op::{Forward, HostOp, HostView};
use crate::vector::{exp_sum, max};
use crate::weight::PackedWeight;

/// Logits that exist at once, at most: 32 MiB of them.
const LOGITS: usize = 8 << 20;

/// `Σ −log softmax(scale·(h·Wᵀ + bias))[label]`, divided by `denominator`.
///
/// Input: h of `[rows, in_features]`. Output: `[1]`. Rows whose label is `None` do not count.
/// The gradient of h is computed along with the loss.
#[derive(Debug, Clone)]
pub struct LinearCrossEntropy {
    /// The head, `[vocab, in_features]`.
    pub weight: Arc<dyn PackedWeight>,
    /// Added to the logits, `[vocab]`.
    pub bias: Option<Arc<Vec<f32>>>,
    /// Multiplies the logits.
    pub scale: f32,
    /// The token to predict from each row; less than `vocab`.
    pub labels: Arc<Vec<Option<u32>>>,
    /// What the sum is divided by, usually the number of labels.
    pub denominator: f64,
}

impl HostOp for LinearCrossEntropy {
    fn forward(&self, inputs: &[HostView], keep: bool) -> Forward {
        let [vocab, width] = self.weight.shape();
        let (rows, _) = inputs[0].rows();
        assert_eq!(rows, self.labels.len(), "one label for each row");
        // Only rows that predict something are worth their logits.
        let wanted: Vec<usize> = (0..rows)
            .filter(|&row| self.labels[row].is_some())
            .collect();
        let mut grad = vec![0.0; if keep { inputs[0].data.len() } else { 0 }];
        let mut loss = 0.0;
        for rows in wanted.chunks((LOGITS / vocab).max(1)) {
            let mut h = Vec::with_capacity(rows.len() * width);
            for &row in rows {
                h.extend_from_slice(&inputs[0].data[row * width..][..width]);
            }
            let mut logits = packed_matmul(&h, &*self.weight, false);
            let losses: Vec<f64> = logits
                .par_chunks_exact_mut(vocab)
                .zip(rows)
                .map(|(logits, &row)| self.row(logits, self.labels[row].expect("wanted")))
                .collect();
            loss += losses.iter().sum::<f64>();
            if keep {
                let dh = packed_matmul(&logits, &*self.weight, true);
                for (&row, dh) in rows.iter().zip(dh.chunks_exact(width)) {
                    grad[row * width..][..width].copy_from_slice(dh);
                }
            }
        }
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

impl LinearCrossEntropy {
    /// The loss of one row; turns its logits into their gradient.
    fn row(&self, logits: &mut [f32], label: u32) -> f64 {
        Arch::new().dispatch(|| {
            if let Some(bias) = &self.bias {
                logits
                    .iter_mut()
                    .zip(bias.iter())
                    .for_each(|(l, b)| *l += b);
            }
            logits.iter_mut().for_each(|l| *l *= self.scale);
            let (target, max) = (logits[label as usize], max(logits));
            // Parts of the sum are few enough terms for f32.
            let parts = logits.chunks_mut(1024);
            let sum: f64 = parts.map(|part| f64::from(exp_sum(part, 1.0, max))).sum();
            let factor = f64::from(self.scale) / self.denominator;
            let normalize = (factor / sum) as f32;
            logits.iter_mut().for_each(|l| *l *= normalize);
            logits[label as usize] -= factor as f32;
            sum.ln() + f64::from(max) - f64::from(target)
        })
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
