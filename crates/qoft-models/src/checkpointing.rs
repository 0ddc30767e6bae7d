//! Gradient checkpointing: a backward that computes each block once more instead of keeping what
//! happened in it.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use qoft_core::ops::StoredActivation;
use qoft_core::{Layer as _, Walk};

use crate::body::{Block, Body, Outputs, Span, Stream};
use crate::in_training::{InTraining, with_noise};
use crate::positions::Tokens;

/// A block with what it was given.
struct Step<'a, B> {
    block: &'a B,
    input: Vec<StoredActivation<3>>,
    /// Whether anything below the block trains, so that the gradient has to go on.
    wants_gradient: bool,
}

/// The value of the loss, and its gradients with little memory: only the input of each block is
/// kept, and each block is computed once more for its backward. `loss` makes it from what
/// the body computes; `sink` gets the gradients of one part of the model after another.
pub(crate) fn backward_by_block<B: Body>(
    body: &B,
    tokens: Tokens,
    training: InTraining,
    loss: &dyn Fn(Outputs) -> Tensor<1>,
    sink: &mut dyn FnMut(Gradients),
) -> f32 {
    let span = Span {
        positions: tokens.positions(0),
        counted: training.counted,
    };
    let noise = |embedded| with_noise(embedded, training.noise);
    let embedded = body.embed_with(tokens.ids, &span, &noise);
    let mut tracked = embedded.tensors().any(Tensor::is_tracked);
    let mut stream = embedded.clone().map(Tensor::inner);
    let format = body.tokens().adapters().activations();
    let mut steps = Vec::new();
    for block in body.blocks() {
        if tracked || trains(block) {
            steps.push(Step {
                block,
                input: stream
                    .tensors()
                    .map(|x| StoredActivation::new(x, format))
                    .collect(),
                wants_gradient: tracked,
            });
            tracked = true;
        }
        // On the autodiff device, so that dropout is that of training, but without a graph. The
        // copy has its own state of the dropout: the block will draw the same once more.
        let block = block.clone().no_grad();
        stream = block.forward(stream, &span, None).map(Tensor::inner);
    }

    let stream = leaves(stream, tracked);
    let loss = loss(Outputs::of(body, stream.clone()));
    let value = loss.clone().into_scalar::<f32>();
    if !loss.is_tracked() {
        return value;
    }
    let mut gradients = loss.backward();
    let mut above = taken(&stream, &mut gradients);
    drop((stream, loss));
    sink(gradients);

    for step in steps.into_iter().rev() {
        let mut input = step.input.into_iter().map(StoredActivation::into_tensor);
        let Some(hidden) = input.next() else { break };
        let stream = Stream::new(hidden).carrying(input.collect());
        let stream = leaves(stream, step.wants_gradient);
        let out = step.block.forward(stream.clone(), &span, None);
        let Some(mut gradients) = backward(out, above) else {
            return value;
        };
        above = taken(&stream, &mut gradients);
        sink(gradients);
    }
    if let Some(gradients) = backward(embedded, above) {
        sink(gradients);
    }
    value
}

/// Whether the block has a parameter that trains.
fn trains(block: &impl Walk) -> bool {
    let layers = block.layers();
    let mut adapters = layers
        .iter()
        .flat_map(|(_, layer)| layer.adapters().active());
    adapters.any(|slot| slot.trains())
}

/// Tensors at which a graph begins; with `wants_gradient` they get gradients.
fn leaves(stream: Stream, wants_gradient: bool) -> Stream {
    if wants_gradient {
        stream.map(|x| x.autodiff().require_grad())
    } else {
        stream
    }
}

/// The gradients of a stream's tensors.
fn taken(stream: &Stream, gradients: &mut Gradients) -> Vec<Option<Tensor<3>>> {
    let tensors = stream.tensors();
    tensors.map(|x| x.grad_remove(gradients)).collect()
}

/// The gradients below a stream's tensors, whose own are `above`; nothing if no gradient goes on.
fn backward(stream: Stream, above: Vec<Option<Tensor<3>>>) -> Option<Gradients> {
    let pairs = stream.tensors().zip(above);
    let sums = pairs.filter_map(|(y, gradient)| {
        let gradient = gradient.filter(|_| y.is_tracked())?;
        Some((y.clone() * gradient.autodiff()).sum())
    });
    sums.reduce(|a, b| a + b).map(|sum| sum.backward())
}
