//! The logits of the output head, and their loss.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use qoft_core::kernels::ops::{LinearCrossEntropy, Operand, TrainedCrossEntropy};
use qoft_core::ops::{self, Traced};
use qoft_core::{Layer as _, Linear, OwnTensor};

use crate::config::ModelConfig;
use crate::targets::{Losses, Targets};

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

/// The sums of the cross-entropies of `targets`, divided by `denominator`, for the logits of a model.
pub fn losses(
    config: &ModelConfig,
    head: &Linear,
    hidden: Traced<3>,
    targets: &Targets,
    denominator: f64,
) -> Losses {
    let labels = targets.labels.clone();
    let adapters = head.adapters();
    let (scale, soft_cap) = (config.logits_multiplier as f32, config.logits_soft_cap);
    if adapters.has_output_side() {
        let logits = logits(config, head.forward(hidden));
        return of_logits(logits.flatten(0, 1), targets, denominator);
    }
    let h = head.matmul_input(hidden);
    let own_weight = adapters.own_weight();
    if own_weight.is_none() && adapters.own_biases().next().is_none() {
        let op = LinearCrossEntropy::new(head.weight().clone(), labels)
            .with_bias(head.bias().map(values))
            .with_scale(scale)
            .with_soft_cap(soft_cap)
            .with_groups(targets.groups.clone())
            .with_smoothing(targets.smoothing)
            .with_denominator(denominator);
        return Losses::new(ops::linear_cross_entropy(h, op));
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
        .with_groups(targets.groups.clone())
        .with_smoothing(targets.smoothing)
        .with_denominator(denominator);
    let operands = [own_weight.map(OwnTensor::value), trained_bias];
    Losses::new(ops::trained_cross_entropy(h, operands, op))
}

/// The sums of the cross-entropies of the rows of `logits` that have a target. All logits are in memory
/// at once, which adapters that change the head's output ask for.
fn of_logits(logits: Tensor<2>, targets: &Targets, denominator: f64) -> Losses {
    let device = logits.device().without_autodiff();
    let groups = targets.groups.count();
    let wanted = targets.labels.iter().enumerate();
    let wanted: Vec<(usize, u32)> = wanted.filter_map(|(at, t)| Some((at, (*t)?))).collect();
    let zeros = Tensor::<1>::zeros([groups], &device);
    if wanted.is_empty() {
        return Losses {
            sums: zeros.clone(),
            right: zeros,
        };
    }
    let ints = |of: &dyn Fn(&(usize, u32)) -> i32| {
        let ints: Vec<i32> = wanted.iter().map(of).collect();
        Tensor::<1, Int>::from_data(ints.as_slice(), &device)
    };
    let rows = ints(&|(row, _)| *row as i32);
    let labels = ints(&|(_, label)| *label as i32).unsqueeze_dim::<2>(1);
    let of_rows = ints(&|(row, _)| targets.groups.of(*row) as i32);
    let logits = logits.select(0, rows);
    let plain = logits.clone().inner();
    let right = plain.clone().gather(1, labels.clone());
    let right = right.greater_equal(plain.max_dim(1)).float();
    let likely = log_softmax(logits, 1);
    let of_label = likely.clone().gather(1, labels);
    let loss = match targets.smoothing {
        0.0 => of_label.neg(),
        e => (of_label * (1.0 - e) + likely.mean_dim(1) * e).neg(),
    };
    let loss: Tensor<1> = loss.flatten(0, 1) / denominator;
    let (sums, loss) = ops::lifted(zeros.clone(), loss);
    let add = IndexingUpdateOp::Add;
    Losses {
        sums: sums.select_assign(0, of_rows.clone(), loss, add),
        right: zeros.select_assign(0, of_rows, right.flatten(0, 1), add),
    }
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
