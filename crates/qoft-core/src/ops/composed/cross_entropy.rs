//! Output head and cross-entropy in one.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use qoft_kernels::ops::LinearCrossEntropy;

use crate::ops::{packed, soft_cap};

/// Logits that exist at once, at most: 128 MiB of them.
const LOGITS: usize = 32 << 20;

/// The loss as a tensor of one element. The gradient of `h` is computed along with it.
pub fn linear_cross_entropy(h: Tensor<2>, op: LinearCrossEntropy) -> Tensor<1> {
    let [rows, width] = h.dims();
    assert_eq!(rows, op.labels.len(), "one label for each row");
    let wanted = op.labels.iter().enumerate();
    let wanted: Vec<(i32, i32)> = wanted
        .filter_map(|(row, label)| Some((row as i32, (*label)? as i32)))
        .collect();
    let keep = h.is_tracked();
    let values = h.clone().inner();
    let device = values.device();
    let mut loss = Tensor::<1>::zeros([1], &device);
    let mut gradient = Tensor::<2>::zeros([rows, width], &device);
    for wanted in wanted.chunks((LOGITS / op.weight.shape()[0]).max(1)) {
        let ints = |ints: Vec<i32>| {
            let data = TensorData::new(ints, [wanted.len()]);
            Tensor::<1, Int>::from_data(data, &device)
        };
        let rows = ints(wanted.iter().map(|(row, _)| *row).collect());
        let labels = ints(wanted.iter().map(|(_, label)| *label).collect());
        let part = values.clone().select(0, rows.clone());
        let (sum, dh) = chunk(part, labels.unsqueeze_dim(1), &op, keep);
        loss = loss + sum;
        if let Some(dh) = dh {
            gradient = gradient.select_assign(0, rows, dh, IndexingUpdateOp::Add);
        }
    }
    let loss = loss / op.denominator;
    if !keep {
        return loss;
    }
    // A number that is 0 and has the gradient that was computed.
    let slope = (h * gradient).sum();
    slope.clone() - slope.inner() + loss
}

/// The sum of the losses of some rows with labels of `[rows, 1]`, and with `keep` the gradient of
/// the rows.
fn chunk(
    h: Tensor<2>,
    labels: Tensor<2, Int>,
    op: &LinearCrossEntropy,
    keep: bool,
) -> (Tensor<1>, Option<Tensor<2>>) {
    let device = h.device();
    let mut logits = packed::matmul(h, &op.weight, false);
    if let Some(bias) = &op.bias {
        logits = logits + Tensor::<1>::from_data(bias.as_slice(), &device).unsqueeze();
    }
    if op.scale != 1.0 {
        logits = logits * op.scale;
    }
    let slopes = op.soft_cap.map(|cap| {
        logits = soft_cap(logits.clone(), cap);
        (logits.clone() / cap.cap()).square().neg() + 1.0
    });
    let logits = logits.clone() - logits.max_dim(1);
    let exponentials = logits.clone().exp();
    let sums = exponentials.clone().sum_dim(1);
    let targets = logits.gather(1, labels.clone());
    let loss = (sums.clone().log() - targets).sum();
    let dh = keep.then(|| {
        let minus_one = Tensor::<2>::full(labels.dims(), -1.0, &device);
        let probabilities = exponentials / sums;
        let gradient = probabilities.scatter(1, labels, minus_one, IndexingUpdateOp::Add);
        let gradient = match slopes {
            Some(slopes) => gradient * slopes,
            None => gradient,
        };
        let factor = f64::from(op.scale) / op.denominator;
        packed::matmul(gradient * factor, &op.weight, true)
    });
    (loss, dh)
}
