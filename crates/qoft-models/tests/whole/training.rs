//! Gradients through whole models reach the rotations of all layers.

use crate::common::{CASES, load, loss, rotate};
use burn::tensor::{Gradients, Tensor};
use qoft_core::Walk;
use qoft_models::CausalLm;

/// The gradients of all layers' parameters.
fn gradients(model: &CausalLm, all: &Gradients) -> Vec<Tensor<1>> {
    let layers = model.layers().into_iter();
    let slots = layers.filter_map(|(_, layer)| layer.adapters().get("default"));
    let grads = slots.map(|slot| slot.params()[0].gradient(all));
    grads.map(|g| g.expect("a gradient")).collect()
}

fn value(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_scalar::<f32>())
}

/// Moves all parameters along `direction`, one tensor for each layer.
fn moved(model: &CausalLm, direction: &[Tensor<1>], step: f64) -> CausalLm {
    let (mut model, mut direction) = (model.clone(), direction.iter());
    model.walk_mut("", &mut |_, layer| {
        let Some(slot) = layer.adapters_mut().get_mut("default") else {
            return;
        };
        let direction = direction.next().unwrap().to_data();
        let param = &mut *slot.params_mut()[0];
        let moved = param.to_vec().into_iter().zip(direction.iter::<f32>());
        param.set(moved.map(|(value, d)| value + d * step as f32).collect());
    });
    model
}

#[test]
fn the_loss_falls_as_fast_as_the_gradients_say() {
    for case in CASES {
        let mut model = load(case);
        rotate(&mut model, 0.0, |_| true);
        let directions = gradients(&model, &loss(&model).backward());
        let squares = directions
            .iter()
            .map(|g| value(g.clone().powf_scalar(2.0).sum()));
        let square: f64 = squares.sum();
        // Where a router chooses other experts within a step, the loss jumps.
        let slope = |step: f64| {
            let step = step / square.sqrt();
            let change = value(loss(&moved(&model, &directions, step)))
                - value(loss(&moved(&model, &directions, -step)));
            change / (2.0 * step)
        };
        let slopes = [0.003, 0.001, 0.0003].map(slope);
        assert!(
            slopes
                .iter()
                .any(|slope| (slope / square - 1.0).abs() < 0.01),
            "{case}: {slopes:?}, by the gradients {square}"
        );
    }
}
