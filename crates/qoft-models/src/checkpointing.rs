//! Gradient checkpointing: a backward that computes each block once more instead of keeping what
//! happened in it.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor};
use qoft_core::ops::StoredActivation;

use crate::model::{Body, CausalLm};
use crate::stack::{Block, Stack};

/// A block with what it was given.
struct Step<'a, B> {
    block: &'a B,
    input: StoredActivation<3>,
    /// Whether anything below the block trains, so that the gradient has to go on.
    wants_gradient: bool,
}

impl CausalLm {
    /// The value of [`Self::loss`], and its gradients with little memory: only the input of each
    /// block is kept, and each block is computed once more for its backward.
    ///
    /// `sink` gets the gradients of one part of the model after another. Together they are
    /// exactly those of [`Self::loss`], unless
    /// [`with_activations_in`](qoft_core::ops::with_activations_in) rounds the inputs.
    ///
    /// # Panics
    /// As [`Self::loss`].
    pub fn backward_by_block(
        &self,
        input_ids: Tensor<2, Int>,
        targets: Vec<Option<u32>>,
        denominator: f64,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        match &self.body {
            Body::Decoder(stack) => self.by_block(stack, input_ids, targets, denominator, sink),
            Body::Gpt2(stack) => self.by_block(stack, input_ids, targets, denominator, sink),
        }
    }

    fn by_block(
        &self,
        stack: &impl Stack,
        input_ids: Tensor<2, Int>,
        targets: Vec<Option<u32>>,
        denominator: f64,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        let shared = stack.shared(0..input_ids.dims()[1]);
        let embedded = stack.embed(input_ids, 0);
        let mut tracked = embedded.is_tracked();
        let mut x = embedded.clone().inner();
        let mut steps = Vec::new();
        for block in stack.blocks() {
            if tracked || trains(block) {
                steps.push(Step {
                    block,
                    input: StoredActivation::new(&x),
                    wants_gradient: tracked,
                });
                tracked = true;
            }
            // On the autodiff device, so that dropout is that of training, but without a graph. The
            // copy has its own state of the dropout: the block will draw the same once more.
            x = block.clone().no_grad().forward(x, &shared, None).inner();
        }

        let x = leaf(x, tracked);
        let loss = self.head_loss(stack.norm(x.clone()), targets, denominator);
        let value = loss.clone().into_scalar::<f32>();
        if !loss.is_tracked() {
            return value;
        }
        let mut gradients = loss.backward();
        let mut gradient = x.grad_remove(&mut gradients);
        drop((x, loss));
        sink(gradients);

        for step in steps.into_iter().rev() {
            let Some(above) = gradient else { break };
            let x = leaf(step.input.into_tensor(), step.wants_gradient);
            let y = step.block.forward(x.clone(), &shared, None);
            let mut gradients = backward(y, above);
            gradient = x.grad_remove(&mut gradients);
            sink(gradients);
        }
        if let Some(above) = gradient.filter(|_| embedded.is_tracked()) {
            sink(backward(embedded, above));
        }
        value
    }
}

/// Whether the block has a parameter that trains.
fn trains(block: &impl Block) -> bool {
    let layers = block.layers();
    let mut adapters = layers
        .iter()
        .flat_map(|(_, layer)| layer.adapters().active());
    adapters.any(|slot| slot.trains())
}

/// A tensor at which a graph begins; with `wants_gradient` it gets a gradient.
fn leaf(x: Tensor<3>, wants_gradient: bool) -> Tensor<3> {
    if wants_gradient {
        x.autodiff().require_grad()
    } else {
        x
    }
}

/// The gradients below `y`, whose own is `gradient`.
fn backward(y: Tensor<3>, gradient: Tensor<3>) -> Gradients {
    (y * gradient.autodiff()).sum().backward()
}
