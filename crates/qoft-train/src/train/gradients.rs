//! The gradients of a step.

use std::collections::BTreeMap;

use burn::module::{Module, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Tensor};
use qoft_core::Walk;

/// The sum of the gradients of several batches, for each parameter of the adapters.
#[derive(Debug, Default)]
pub(super) struct StepGradients(BTreeMap<u64, (ParamId, Tensor<1>)>);

impl StepGradients {
    /// Adds the gradients of a batch.
    pub(super) fn add(&mut self, gradients: Gradients, model: &(impl Module + Walk)) {
        let mut gradients = GradientsParams::from_grads(gradients, model);
        model.walk("", &mut |_, layer| {
            for slot in layer.adapters().slots() {
                for param in slot.params() {
                    let id = param.id();
                    if let Some(gradient) = gradients.remove::<1>(id) {
                        self.add_one(id, gradient);
                    }
                }
            }
        });
    }

    /// Adds what others are the sum of.
    pub(super) fn merge(&mut self, other: Self) {
        for (id, gradient) in other.0.into_values() {
            self.add_one(id, gradient);
        }
    }

    /// All values in the order of `params`, zeros where there is no gradient, and where there is one.
    pub(super) fn to_host(&self, params: &[(ParamId, usize)]) -> (Vec<f32>, Vec<bool>) {
        let mut values = Vec::with_capacity(params.iter().map(|(_, length)| length).sum());
        let present = params.iter().map(|(id, length)| {
            let gradient = self.0.get(&id.val());
            match gradient {
                None => values.resize(values.len() + length, 0.0),
                Some((_, gradient)) => {
                    let data = gradient.to_data();
                    match data.as_slice::<f32>() {
                        Ok(slice) => values.extend_from_slice(slice),
                        // Of another float type.
                        Err(_) => values.extend(data.iter::<f32>()),
                    }
                }
            }
            gradient.is_some()
        });
        let present = present.collect();
        (values, present)
    }

    /// Gradients of these values, on `device`.
    pub(super) fn from_host(
        params: &[(ParamId, usize)],
        values: Vec<Option<Vec<f32>>>,
        device: &Device,
    ) -> Self {
        let mut gradients = Self::default();
        for ((id, _), values) in params.iter().zip(values) {
            if let Some(values) = values {
                gradients.add_one(*id, Tensor::from_data(values.as_slice(), device));
            }
        }
        gradients
    }

    fn add_one(&mut self, id: ParamId, gradient: Tensor<1>) {
        let sum = match self.0.remove(&id.val()) {
            Some((_, sum)) => sum + gradient,
            None => gradient,
        };
        self.0.insert(id.val(), (id, sum));
    }

    /// The norm of all gradients together.
    pub(super) fn norm(&self) -> f64 {
        let squares: Vec<Tensor<1>> = self
            .0
            .values()
            .map(|(_, gradient)| gradient.clone().square().sum())
            .collect();
        if squares.is_empty() {
            return 0.0;
        }
        // Put together, so that the device is asked once.
        let squares = Tensor::cat(squares, 0).into_data();
        squares.iter::<f64>().sum::<f64>().sqrt()
    }

    /// The parameter nearest to the model's output whose gradient is not finite: gradients come
    /// from there.
    pub(super) fn source(&self, model: &impl Walk) -> Option<String> {
        let finite = |gradient: &Tensor<1>| {
            let values = gradient.to_data();
            values.iter::<f32>().all(|value| value.is_finite())
        };
        for (path, layer) in model.layers().into_iter().rev() {
            for slot in layer.adapters().slots() {
                for param in slot.params() {
                    let gradient = self.0.get(&param.id().val());
                    if gradient.is_some_and(|(_, gradient)| !finite(gradient)) {
                        return Some(format!("the gradient of `{path}.{}`", param.name()));
                    }
                }
            }
        }
        None
    }

    /// Scales the gradients down to the norm `max_norm`, unless it is 0 or they are below it
    /// already, and hands them to the optimizer.
    pub(super) fn clipped(self, norm: f64, max_norm: f64) -> GradientsParams {
        let factor = max_norm / (norm + 1e-6);
        let clip = max_norm > 0.0 && factor < 1.0;
        let mut gradients = GradientsParams::new();
        for (id, gradient) in self.0.into_values() {
            let gradient = if clip {
                gradient.mul_scalar(factor)
            } else {
                gradient
            };
            gradients.register(id, gradient);
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn gradients(values: [[f32; 2]; 2]) -> StepGradients {
        let mut gradients = StepGradients::default();
        for (id, value) in values.into_iter().enumerate() {
            let tensor = Tensor::from_data(value, &Device::flex());
            gradients.add_one(ParamId::from(id as u64), tensor);
        }
        gradients
    }

    fn first(mut gradients: GradientsParams) -> Vec<f32> {
        let tensor = gradients.remove::<1>(ParamId::from(0)).unwrap();
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn the_norm_is_over_all_parameters() {
        assert!((gradients([[3.0, 0.0], [0.0, 4.0]]).norm() - 5.0).abs() < 1e-6);
        assert_eq!(StepGradients::default().norm(), 0.0);
    }

    #[test]
    fn gradients_of_a_parameter_add_up() {
        let mut sum = gradients([[1.0, 0.0], [0.0, 0.0]]);
        sum.add_one(
            ParamId::from(0),
            Tensor::from_data([2.0, 4.0], &Device::flex()),
        );
        assert_eq!(first(sum.clipped(5.0, 0.0)), [3.0, 4.0]);
    }

    #[test]
    fn only_large_gradients_are_clipped() {
        let small = gradients([[3.0, 0.0], [0.0, 4.0]]);
        assert_eq!(first(small.clipped(5.0, 6.0)), [3.0, 0.0]);
        let large = gradients([[3.0, 0.0], [0.0, 4.0]]);
        let clipped = first(large.clipped(5.0, 1.0));
        assert!((clipped[0] - 0.6).abs() < 1e-6);
    }
}
