//! Differentiable operations on host memory.

use std::fmt::Debug;

/// A read-only tensor: contiguous `f32` values, row-major.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HostView<'a> {
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
    /// The values.
    pub data: &'a [f32],
}

impl<'a> HostView<'a> {
    /// An input of which only the shape is known: its values are not read.
    pub fn unread(shape: &'a [usize]) -> Self {
        Self { shape, data: &[] }
    }

    /// A view of `data`, whose length is the product of `shape`.
    pub fn new(shape: &'a [usize], data: &'a [f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// Size of the last dimension and the number of rows before it.
    pub fn rows(&self) -> (usize, usize) {
        let width = *self.shape.last().expect("a tensor of rank 1 or more");
        (self.data.len() / width.max(1), width)
    }
}

/// What a forward pass yields.
#[derive(Debug)]
#[non_exhaustive]
pub struct Forward {
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// Values of the output.
    pub data: Vec<f32>,
    /// What the backward needs beside the inputs; empty unless asked for.
    pub saved: Vec<f32>,
}

impl Forward {
    /// An output with nothing saved.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        Self {
            shape: shape.to_vec(),
            data,
            saved: Vec::new(),
        }
    }
}

/// An operation on one to three tensors with a handwritten backward.
pub trait HostOp: Debug + Send + Sync + 'static {
    /// Computes the output. `keep` says whether a backward will follow.
    fn forward(&self, inputs: &[HostView], keep: bool) -> Forward;

    /// Whether [`Self::backward`] reads input `index`; others are not kept alive.
    fn reads(&self, index: usize) -> bool;

    /// Whether the output is worth less than its memory: operations that read it in their
    /// backward then compute it once more, from the inputs that are kept for this one. Only for
    /// operations whose backward reads all inputs.
    fn cheap(&self) -> bool {
        false
    }

    /// The gradients of the inputs for which `wants` is true, in the inputs' layout.
    ///
    /// `inputs[i]` is empty where [`Self::reads`] is false. `grad` is the output's gradient.
    fn backward(
        &self,
        inputs: &[HostView],
        saved: &[f32],
        grad: HostView,
        wants: &[bool],
    ) -> Vec<Option<Vec<f32>>>;
}
