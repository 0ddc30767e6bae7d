//! The logits of the output head, and their loss.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use qoft_core::kernels::ops::{LinearCrossEntropy, Operand, TrainedCrossEntropy};
use qoft_core::ops::{self, Traced};
use qoft_core::{Layer as _, Linear, OwnTensor};

use crate::config::ModelConfig;

/// The model's logits from the outputs of its head.
pub fn logits<const D: usize>(config: &ModelConfig, outputs: Tensor<D>) -> Tensor<D> {
    let logits = match config.logits_multiplier {
        1.0 => outputs,
        multiplier => outputs * multiplier,
    };
    match config.logits_soft_cap {
        None => logits,
        Some(cap) => ops::soft_cap(logits, cap),
    }
}

/// The sum of the cross-entropies of `labels`, divided by `denominator`, for the logits of a model.
pub fn loss(
    config: &ModelConfig,
    head: &Linear,
    hidden: Traced<3>,
    labels: Arc<Vec<Option<u32>>>,
    denominator: f64,
) -> Tensor<1> {
    let adapters = head.adapters();
    let (scale, soft_cap) = (config.logits_multiplier as f32, config.logits_soft_cap);
    if adapters.has_output_side() {
        let logits = logits(config, head.forward(hidden));
        return of_logits(logits.flatten(0, 1), &labels) / denominator;
    }
    let h = head.matmul_input(hidden);
    let own_weight = adapters.own_weight();
    if own_weight.is_none() && adapters.own_biases().next().is_none() {
        let op = LinearCrossEntropy::new(head.weight().clone(), labels)
            .with_bias(head.bias().map(values))
            .with_scale(scale)
            .with_soft_cap(soft_cap)
            .with_denominator(denominator);
        return ops::linear_cross_entropy(h, op);
    }
    let weight = own_weight.map_or_else(
        || Operand::Fixed(head.weight().clone()),
        |own| Operand::Input {
            trains: own.trains(),
        },
    );
    let (bias, trained_bias) = bias(head);
    let op = TrainedCrossEntropy::new(weight, labels)
        .with_bias(bias)
        .with_scale(scale)
        .with_soft_cap(soft_cap)
        .with_denominator(denominator);
    ops::trained_cross_entropy(h, [own_weight.map(OwnTensor::value), trained_bias], op)
}

/// The sum of the cross-entropies of the rows of `logits` that have a target. All logits are in memory
/// at once, which adapters that change the head's output ask for.
fn of_logits(logits: Tensor<2>, targets: &[Option<u32>]) -> Tensor<1> {
    let device = logits.device().without_autodiff();
    let wanted = targets.iter().enumerate();
    let wanted = wanted.filter_map(|(row, target)| Some((row as i32, (*target)? as i32)));
    let (rows, labels): (Vec<i32>, Vec<i32>) = wanted.unzip();
    if rows.is_empty() {
        return Tensor::zeros([1], &device);
    }
    let ints = |ints: Vec<i32>| Tensor::<1, Int>::from_data(ints.as_slice(), &device);
    let logits = logits.select(0, ints(rows));
    let labels = ints(labels).unsqueeze_dim(1);
    log_softmax(logits, 1).gather(1, labels).sum().neg()
}

fn values(bias: &Tensor<1>) -> Arc<Vec<f32>> {
    Arc::new(bias.to_data().iter::<f32>().collect())
}

/// A bias as the loss takes it, and its values if it is an input.
type HeadBias = (Option<Operand<Arc<Vec<f32>>>>, Option<Tensor<2>>);

/// The bias of the head, and its values if adapters have their own.
fn bias(head: &Linear) -> HeadBias {
    let Some(base) = head.bias() else {
        return (None, None);
    };
    if head.adapters().own_biases().next().is_none() {
        return (Some(Operand::Fixed(values(base))), None);
    }
    let trains = head.adapters().own_biases().any(OwnTensor::trains);
    let bias = head.adapters().bias(base).unsqueeze();
    (Some(Operand::Input { trains }), Some(bias))
}
