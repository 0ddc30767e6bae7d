//! What a graph keeps for the backward.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use qoft_kernels::{FloatFormat, HostOp, HostView};

use super::host::HostTensors;
use super::rounded::Rounded;
use super::traced::Trace;

/// An operation shared between the forward and the backward pass.
pub type SharedOp = Arc<dyn HostOp>;

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
    /// Keeps what the backward of `op` reads of its inputs, each as its trace says.
    pub(super) fn new(op: SharedOp, inputs: &[FloatTensor<B>], traces: &[Trace]) -> Arc<Self> {
        let inputs = inputs.iter().zip(traces).enumerate();
        let inputs = inputs.map(|(index, (tensor, trace))| Input {
            shape: tensor.shape().to_vec(),
            values: op.reads(index).then(|| Saved::new(tensor, trace)),
        });
        Arc::new(Self {
            inputs: inputs.collect(),
            op,
        })
    }

    /// Calls `f` with the inputs; those that the backward does not read are empty.
    pub(super) fn read<R>(&self, f: impl FnOnce(&[HostView]) -> R) -> R {
        let hold = |input: &Input<B>| input.values.as_ref().map(Saved::hold);
        let held: Vec<Option<Held<B>>> = self.inputs.iter().map(hold).collect();
        let views = self
            .inputs
            .iter()
            .zip(&held)
            .map(|(input, held)| match held {
                Some(held) => HostView::new(&input.shape, held.values()),
                None => HostView::unread(&input.shape),
            });
        f(&views.collect::<Vec<_>>())
    }
}

impl<B: HostTensors> Saved<B> {
    fn new(tensor: &FloatTensor<B>, trace: &Trace) -> Self {
        if let Some(recorded) = trace.maker() {
            return Self::Again(recorded);
        }
        match trace.format() {
            FloatFormat::F32 => Self::Exact(tensor.clone()),
            format => Self::Rounded(
                trace.rounded(|| Rounded::new(B::hold(tensor.clone()).as_ref(), format)),
            ),
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
