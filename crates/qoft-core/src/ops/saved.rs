//! What a graph keeps for the backward.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use burn::backend::TensorMetadata;
use burn::backend::autodiff::NodeId;
use burn::backend::tensor::FloatTensor;
use qoft_kernels::{FloatFormat, HostView};

use super::SharedOp;
use super::bridge::HostTensors;
use super::rounded::{Rounded, shared};

thread_local! {
    static FORMAT: Cell<FloatFormat> = const { Cell::new(FloatFormat::F32) };
    /// Operations by the node of their output, where that is not worth its memory.
    static CHEAP: RefCell<HashMap<u64, Weak<dyn Any + Send + Sync>>> = RefCell::default();
}

/// Entries of a table at which those that are out of use are removed.
pub(super) const MANY: usize = 256;

/// Lets the operations that `record` runs keep activations in `format` for their backward, which
/// widens them again. What they compute forward stays as it is; the gradients are those of the
/// rounded activations. Parameters and rotations are never rounded.
///
/// It holds for the operations of this module and for [`Kept`](super::Kept), on the calling
/// thread.
pub fn with_activations_in<R>(format: FloatFormat, record: impl FnOnce() -> R) -> R {
    struct Restore(FloatFormat);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORMAT.set(self.0);
        }
    }
    let _restore = Restore(FORMAT.replace(format));
    record()
}

/// The format in which activations are kept now.
pub(super) fn activation_format() -> FloatFormat {
    FORMAT.get()
}

/// An operation of the graph with the inputs that its backward reads.
#[derive(Debug)]
pub(super) struct Recorded<B: HostTensors> {
    pub(super) op: SharedOp,
    pub(super) inputs: Vec<Input<B>>,
}

/// An input of an operation.
#[derive(Debug)]
pub(super) struct Input<B: HostTensors> {
    pub(super) shape: Vec<usize>,
    /// `None` where the backward does not read it.
    values: Option<Saved<B>>,
}

/// How the values of an input are kept.
#[derive(Debug)]
enum Saved<B: HostTensors> {
    Exact(FloatTensor<B>),
    Rounded(Arc<Rounded>),
    /// Not at all: they are the output of this operation.
    Again(Arc<Recorded<B>>),
}

impl<B: HostTensors> Recorded<B> {
    /// Keeps what the backward of `op` reads of its inputs, which are the outputs of `nodes`.
    pub(super) fn new(op: SharedOp, inputs: &[FloatTensor<B>], nodes: &[NodeId]) -> Arc<Self> {
        let inputs = inputs.iter().zip(nodes).enumerate();
        let inputs = inputs.map(|(index, (tensor, node))| Input {
            shape: tensor.shape().to_vec(),
            values: op
                .reads(index)
                .then(|| Saved::new(tensor, *node, op.activation(index))),
        });
        Arc::new(Self {
            inputs: inputs.collect(),
            op,
        })
    }

    /// Says that this operation made the output of `node`. Where it is cheap, later operations
    /// compute that output again instead of keeping it.
    pub(super) fn made(self: &Arc<Self>, node: NodeId) {
        if !self.op.cheap() {
            return;
        }
        let this: Arc<dyn Any + Send + Sync> = self.clone();
        CHEAP.with_borrow_mut(|known| {
            if known.len() >= MANY {
                known.retain(|_, recorded| recorded.strong_count() > 0);
            }
            known.insert(node.value, Arc::downgrade(&this));
        });
    }

    /// Calls `f` with the inputs; those that the backward does not read are empty.
    pub(super) fn read<R>(&self, f: impl FnOnce(&[HostView]) -> R) -> R {
        let hold = |input: &Input<B>| input.values.as_ref().map(Saved::hold);
        let held: Vec<Option<Held<B>>> = self.inputs.iter().map(hold).collect();
        let views = self.inputs.iter().zip(&held).map(|(input, held)| {
            let (shape, data) = (&input.shape, held.as_ref().map_or(&[][..], Held::values));
            HostView { shape, data }
        });
        f(&views.collect::<Vec<_>>())
    }
}

/// The cheap operation that made the output of `node`.
fn maker<B: HostTensors>(node: NodeId) -> Option<Arc<Recorded<B>>> {
    let found = CHEAP.with_borrow(|known| known.get(&node.value).and_then(Weak::upgrade));
    found.and_then(|recorded| recorded.downcast().ok())
}

impl<B: HostTensors> Saved<B> {
    /// Keeps a tensor; `activation` says whether it may be rounded.
    fn new(tensor: &FloatTensor<B>, node: NodeId, activation: bool) -> Self {
        if let Some(recorded) = maker(node) {
            return Self::Again(recorded);
        }
        match activation_format() {
            FloatFormat::F32 => Self::Exact(tensor.clone()),
            _ if !activation => Self::Exact(tensor.clone()),
            format => Self::Rounded(shared(B::hold(tensor.clone()).as_ref(), format)),
        }
    }

    fn hold(&self) -> Held<B> {
        match self {
            Self::Exact(tensor) => Held::Exact(B::hold(tensor.clone())),
            Self::Rounded(rounded) => Held::Made(rounded.widened()),
            Self::Again(recorded) => {
                Held::Made(recorded.read(|inputs| recorded.op.forward(inputs, false).data))
            }
        }
    }
}

/// Values of an input.
enum Held<B: HostTensors> {
    Exact(B::Held),
    Made(Vec<f32>),
}

impl<B: HostTensors> Held<B> {
    fn values(&self) -> &[f32] {
        match self {
            Self::Exact(held) => held.as_ref(),
            Self::Made(values) => values,
        }
    }
}
