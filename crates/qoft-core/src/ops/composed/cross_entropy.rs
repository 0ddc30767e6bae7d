//! Output head and cross-entropy in one.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use qoft_kernels::ops::LinearCrossEntropy;

use crate::ops::{packed, soft_cap};

/// Logits that exist at once, at most: 128 MiB of them.
const LOGITS: usize = 32 << 20;

/// The output of the operation. The gradient of `h` is computed along with it.
pub fn linear_cross_entropy(h: Tensor<2>, op: LinearCrossEntropy) -> Tensor<1> {
    let [rows, width] = h.dims();
    assert_eq!(rows, op.labels.len(), "one label for each row");
    let wanted = op.labels.iter().enumerate();
    let wanted: Vec<(usize, u32)> = wanted
        .filter_map(|(row, label)| Some((row, (*label)?)))
        .collect();
    let keep = h.is_tracked();
    let values = h.clone().inner();
    let device = values.device();
    let ints = |ints: Vec<i32>| {
        let count = ints.len();
        Tensor::<1, Int>::from_data(TensorData::new(ints, [count]), &device)
    };
    let groups = op.groups.count();
    let mut losses = Tensor::<1>::zeros([groups], &device);
    let mut right = Tensor::<1>::zeros([groups], &device);
    let mut gradient = Tensor::<2>::zeros([rows, width], &device);
    for wanted in wanted.chunks((LOGITS / op.weight.shape()[0]).max(1)) {
        let rows = ints(wanted.iter().map(|(row, _)| *row as i32).collect());
        let labels = ints(wanted.iter().map(|(_, label)| *label as i32).collect());
        let of_rows = wanted.iter().map(|(row, _)| op.groups.of(*row) as i32);
        let of_rows = ints(of_rows.collect());
        let part = values.clone().select(0, rows.clone());
        let chunk = chunk(part, labels.unsqueeze_dim(1), &op, keep);
        let add = IndexingUpdateOp::Add;
        losses = losses.select_assign(0, of_rows.clone(), chunk.losses, add);
        right = right.select_assign(0, of_rows, chunk.right, add);
        if let Some(dh) = chunk.gradient {
            gradient = gradient.select_assign(0, rows, dh, add);
        }
    }
    let losses = losses / op.denominator;
    let output = Tensor::cat(vec![losses, right], 0);
    if !keep {
        return output;
    }
    // Numbers that are 0 and have the gradients that were computed.
    let slopes = (h * gradient).sum_dim(1).flatten::<1>(0, 1);
    let all = ints((0..rows).map(|row| op.groups.of(row) as i32).collect());
    let zeros = Tensor::<1>::zeros([2 * groups], &slopes.device());
    let slopes = zeros.select_assign(0, all, slopes, IndexingUpdateOp::Add);
    slopes.clone() - slopes.inner() + output
}

/// What some rows come to.
struct Chunk {
    /// The loss of each.
    losses: Tensor<1>,
    /// 1 where the label has the largest logit, of several the first, and 0 elsewhere.
    right: Tensor<1>,
    /// The gradient of the sum of the losses, if it is kept.
    gradient: Option<Tensor<2>>,
}

/// The losses of some rows with labels of `[rows, 1]`.
fn chunk(h: Tensor<2>, labels: Tensor<2, Int>, op: &LinearCrossEntropy, keep: bool) -> Chunk {
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
    let targets = logits.clone().gather(1, labels.clone());
    let right = logits.clone().argmax(1).equal(labels.clone()).float();
    let loss = match op.smoothing {
        0.0 => sums.clone().log() - targets,
        e => sums.clone().log() - targets * (1.0 - e) - logits.mean_dim(1) * e,
    };
    let gradient = keep.then(|| {
        let label = Tensor::<2>::full(labels.dims(), op.smoothing - 1.0, &device);
        let probabilities = exponentials / sums;
        let mut gradient = probabilities.scatter(1, labels, label, IndexingUpdateOp::Add);
        if op.smoothing > 0.0 {
            gradient = gradient - op.smoothing / op.weight.shape()[0] as f64;
        }
        let gradient = match slopes {
            Some(slopes) => gradient * slopes,
            None => gradient,
        };
        let factor = f64::from(op.scale) / op.denominator;
        packed::matmul(gradient * factor, &op.weight, true)
    });
    Chunk {
        losses: loss.flatten(0, 1),
        right: right.flatten(0, 1),
        gradient,
    }
}
