//! Schedule-free AdamW: the average of the steps in the place of a falling learning rate.
//!
//! As in the package `schedulefree`: three values of each parameter belong together. Gradients are taken at
//! `y`, steps go from `z` to the next `z`, and the result is `x`, the average of all `z`. The model has `y` while it
//! trains; evaluations and files get `x`.

use std::collections::BTreeMap;

use burn::optim::{LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};
use burn_pack::{Reader, Scalar};
use qoft_core::Walk;

use super::ADAPTER;

/// The values that `y` and `z` have in files.
pub(super) const TENSORS: [&str; 3] = ["y", "z", "exp_avg_sq"];
/// The count of steps in files.
pub(super) const STEPS: &str = "steps";
/// What the weights of the average go on from, in files.
pub(super) const NUMBERS: [&str; 2] = ["weight_sum", "rate_max"];

/// The optimizer of some parameters.
#[derive(Debug, Clone)]
pub(super) struct ScheduleFree {
    /// How much of `x` is in `y`, and how long squares of gradients are remembered.
    pub(super) betas: [f64; 2],
    /// What is added to the root of the squares.
    pub(super) epsilon: f64,
    /// Weight decay, at `y`.
    pub(super) weight_decay: f64,
    /// Steps in which the learning rate grows.
    pub(super) warmup: usize,
}

/// What it keeps of a parameter.
#[derive(Debug, Clone)]
pub(super) struct State<const D: usize> {
    /// As in the model, to go on from a file that has `x`.
    y: Tensor<D>,
    z: Tensor<D>,
    exp_avg_sq: Tensor<D>,
    steps: u64,
    weight_sum: f64,
    rate_max: f64,
}

impl Optimizer for ScheduleFree {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        y: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let [beta1, beta2] = self.betas;
        let mut state = state.unwrap_or_else(|| State {
            y: y.clone(),
            z: y.clone(),
            exp_avg_sq: y.zeros_like(),
            steps: 0,
            weight_sum: 0.0,
            rate_max: -1.0,
        });
        state.steps += 1;
        let lr = lr * (state.steps as f64 / self.warmup.max(1) as f64).min(1.0);
        state.rate_max = state.rate_max.max(lr);
        let weight = state.rate_max.powi(2);
        state.weight_sum += weight;
        // With a rate of 0 so far there is nothing to weigh.
        let share = match state.weight_sum > 0.0 {
            true => weight / state.weight_sum,
            false => 0.0,
        };

        let squares = grad.clone().square().mul_scalar(1.0 - beta2);
        state.exp_avg_sq = state.exp_avg_sq.mul_scalar(beta2).add(squares);
        let correction = 1.0 - beta2.powf(state.steps as f64);
        let divisor = state.exp_avg_sq.clone().div_scalar(correction).sqrt();
        let mut step = grad.div(divisor.add_scalar(self.epsilon));
        if self.weight_decay > 0.0 {
            step = step.add(y.clone().mul_scalar(self.weight_decay));
        }
        let towards = between(y, state.z.clone(), share);
        let y = towards.add(step.clone().mul_scalar(lr * (beta1 * (1.0 - share) - 1.0)));
        state.z = state.z.sub(step.mul_scalar(lr));
        state.y = y.clone();
        (y, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        State {
            y: state.y.to_device(device),
            z: state.z.to_device(device),
            exp_avg_sq: state.exp_avg_sq.to_device(device),
            ..state
        }
    }
}

/// `start`, and `share` of the way from there to `end`.
fn between<const D: usize>(start: Tensor<D>, end: Tensor<D>, share: f64) -> Tensor<D> {
    start.clone().add(end.sub(start).mul_scalar(share))
}

impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let tensors = [&self.y, &self.z, &self.exp_avg_sq];
        for (name, tensor) in TENSORS.into_iter().zip(tensors) {
            out.push_tensor(prefix, name, tensor.clone().into_data());
        }
        out.push_scalar(prefix, STEPS, Scalar::from(self.steps));
        for (name, number) in NUMBERS.into_iter().zip([self.weight_sum, self.rate_max]) {
            out.push_scalar(prefix, name, Scalar::from(number));
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let [y, z, exp_avg_sq] = TENSORS.map(|name| {
            let data: TensorData = src.take_tensor(prefix, name)?;
            Some(Tensor::from_data(data, device))
        });
        let [weight_sum, rate_max] =
            NUMBERS.map(|name| f64::try_from(src.take_scalar(prefix, name)?).ok());
        Some(Self {
            y: y?,
            z: z?,
            exp_avg_sq: exp_avg_sq?,
            steps: u64::try_from(src.take_scalar(prefix, STEPS)?).ok()?,
            weight_sum: weight_sum?,
            rate_max: rate_max?,
        })
    }
}

/// Gives a model that trains the values `x` in the place of `y`: the average that is the result.
pub(super) fn take_average(
    model: &mut impl Walk,
    optimizer: &ModuleOptimizer,
    beta1: f64,
) -> Result<(), String> {
    let mut kept = kept(optimizer)?;
    set(model, &mut |id| {
        let [y, z] = ["y", "z"].map(|name| kept.remove(&(id, name)));
        Some(average(&y?, &z?, beta1))
    });
    Ok(())
}

/// Gives a model that goes on from a checkpoint the values `y` in the place of `x`.
pub(super) fn take_trained(
    model: &mut impl Walk,
    optimizer: &ModuleOptimizer,
) -> Result<(), String> {
    let mut kept = kept(optimizer)?;
    set(model, &mut |id| kept.remove(&(id, "y")));
    Ok(())
}

/// `x` of `y` and `z`.
pub(super) fn average(y: &[f32], z: &[f32], beta1: f64) -> Vec<f32> {
    let share = (1.0 - 1.0 / beta1) as f32;
    y.iter().zip(z).map(|(y, z)| y + (z - y) * share).collect()
}

/// `y` and `z` of each parameter that had a gradient, by its number and these names.
pub(super) fn kept(
    optimizer: &ModuleOptimizer,
) -> Result<BTreeMap<(u64, &'static str), Vec<f32>>, String> {
    let bytes = optimizer.into_bytes().map_err(|error| error.to_string())?;
    let reader = Reader::from_bytes(bytes).map_err(|error| error.to_string())?;
    let mut values = BTreeMap::new();
    for tensor in reader.into_tensors().map_err(|error| error.to_string())? {
        let name = ["y", "z"].into_iter().find(|name| {
            let field = tensor.name.rsplit_once('.').map(|(_, field)| field);
            field == Some(*name)
        });
        let (Some(name), Some(id)) = (name, tensor.param_id) else {
            continue;
        };
        let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
        let (words, _) = bytes.as_chunks::<4>();
        let floats = words.iter().map(|word| f32::from_le_bytes(*word));
        values.insert((id, name), floats.collect());
    }
    Ok(values)
}

/// Sets parameters to values by their numbers. Those without a value stay.
fn set(model: &mut impl Walk, value: &mut dyn FnMut(u64) -> Option<Vec<f32>>) {
    model.walk_mut("", &mut |_, layer| {
        if let Some(slot) = layer.adapters_mut().get_mut(ADAPTER) {
            for param in slot.params_mut() {
                if let Some(values) = value(param.id().val()) {
                    param.set(values);
                }
            }
        }
    });
}
