//! The bridge between host operations and Burn's tensors.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::{HostOp, HostView};

use super::host::HostTensors;
use super::saved::{Recorded, SharedOp};
use super::traced::{Trace, Traced};

/// Burn backends that run host operations of one to four tensors.
#[backend_extension(
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cubecl"),
    Autodiff
)]
pub trait HostOps: Backend {
    /// An operation of one tensor.
    fn host_unary(a: FloatTensor<Self>, call: HostCall) -> FloatTensor<Self>;

    /// An operation of two tensors.
    fn host_binary(a: FloatTensor<Self>, b: FloatTensor<Self>, call: HostCall)
    -> FloatTensor<Self>;

    /// An operation of three tensors.
    fn host_ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        call: HostCall,
    ) -> FloatTensor<Self>;

    /// An operation of four tensors.
    fn host_quaternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        call: HostCall,
    ) -> FloatTensor<Self>;
}

/// An operation with how a graph keeps its inputs.
#[derive(Debug, Clone)]
pub struct HostCall {
    op: SharedOp,
    inputs: Vec<Trace>,
    output: Trace,
}

impl HostCall {
    fn new(op: impl HostOp, inputs: Vec<Trace>) -> Self {
        let output = Trace::kept_as(&inputs[0]);
        Self {
            op: Arc::new(op),
            inputs,
            output,
        }
    }
}

fn run<B: HostTensors>(
    inputs: Vec<FloatTensor<B>>,
    op: &dyn HostOp,
    keep: bool,
) -> (FloatTensor<B>, Vec<f32>) {
    let device = inputs[0].device();
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
    let held: Vec<B::Held> = inputs.into_iter().map(B::hold).collect();
    let views: Vec<HostView> = shapes
        .iter()
        .zip(&held)
        .map(|(s, h)| HostView::new(s, h.as_ref()))
        .collect();
    let out = op.forward(&views, keep);
    (
        B::float_from_data(TensorData::new(out.data, out.shape), &device),
        out.saved,
    )
}

macro_rules! run_on {
    ($backend:ty) => {
        impl HostOps for $backend {
            fn host_unary(a: FloatTensor<Self>, call: HostCall) -> FloatTensor<Self> {
                run::<Self>(vec![a], &*call.op, false).0
            }

            fn host_binary(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                call: HostCall,
            ) -> FloatTensor<Self> {
                run::<Self>(vec![a, b], &*call.op, false).0
            }

            fn host_ternary(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
                call: HostCall,
            ) -> FloatTensor<Self> {
                run::<Self>(vec![a, b, c], &*call.op, false).0
            }

            fn host_quaternary(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
                d: FloatTensor<Self>,
                call: HostCall,
            ) -> FloatTensor<Self> {
                run::<Self>(vec![a, b, c, d], &*call.op, false).0
            }
        }
    };
}

run_on!(Flex);
#[cfg(feature = "ndarray")]
run_on!(burn::backend::NdArray);
#[cfg(feature = "cubecl")]
run_on!(burn::backend::Cube);

impl<B: HostTensors, C: CheckpointStrategy> HostOps for Autodiff<B, C> {
    fn host_unary(a: FloatTensor<Self>, call: HostCall) -> FloatTensor<Self> {
        tracked::<B, C, 1>([a], call)
    }

    fn host_binary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        call: HostCall,
    ) -> FloatTensor<Self> {
        tracked::<B, C, 2>([a, b], call)
    }

    fn host_ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        call: HostCall,
    ) -> FloatTensor<Self> {
        tracked::<B, C, 3>([a, b, c], call)
    }

    fn host_quaternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        call: HostCall,
    ) -> FloatTensor<Self> {
        tracked::<B, C, 4>([a, b, c, d], call)
    }
}

/// The backward of any host operation.
#[derive(Debug)]
struct HostBackward;

/// What a backward step keeps.
#[derive(Debug, Clone)]
struct StepState<B: HostTensors> {
    recorded: Arc<Recorded<B>>,
    saved: Arc<Vec<f32>>,
}

fn tracked<B: HostTensors, C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    call: HostCall,
) -> FloatTensor<Autodiff<B, C>> {
    let (tensors, nodes): (Vec<_>, Vec<_>) = inputs.into_iter().map(|t| t.into_parts()).unzip();
    let nodes = nodes.try_into().expect("as many nodes as inputs");
    match <HostBackward as Backward<B, N>>::prepare::<C>(HostBackward, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let recorded = Recorded::<B>::new(call.op, &tensors, &call.inputs);
            let (out, saved) = run::<B>(tensors, &*recorded.op, true);
            if recorded.op.cheap() {
                call.output.made_by(recorded.clone());
            }
            let saved = Arc::new(saved);
            prep.finish(StepState { recorded, saved }, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(run::<B>(tensors, &*call.op, false).0),
    }
}

impl<B: HostTensors, const N: usize> Backward<B, N> for HostBackward {
    type State = StepState<B>;

    fn backward(self, ops: Ops<StepState<B>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (device, grad_shape) = (grad.device(), grad.shape().to_vec());
        let grad = B::hold(grad);
        let StepState { recorded, saved } = ops.state;
        let wants = ops.parents.each_ref().map(Option::is_some);
        let view = HostView::new(&grad_shape, grad.as_ref());
        let results = recorded.read(|inputs| recorded.op.backward(inputs, &saved, view, &wants));
        let shapes = recorded.inputs.iter().map(|input| input.shape.clone());
        for ((parent, result), shape) in ops.parents.into_iter().zip(results).zip(shapes) {
            if let (Some(parent), Some(values)) = (parent, result) {
                let data = TensorData::new(values, shape);
                grads.register::<B>(parent.id, B::float_from_data(data, &device));
            }
        }
    }
}

/// Applies an operation of one tensor.
pub fn unary<const D: usize, const E: usize>(
    a: impl Into<Traced<D>>,
    op: impl HostOp,
) -> Traced<E> {
    let (a, a_trace) = a.into().into_parts();
    let call = HostCall::new(op, vec![a_trace]);
    let output = call.output.clone();
    let y = <Dispatch as HostOps>::host_unary(a.into_dispatch(), call);
    Traced::new(Tensor::from_dispatch(y), output)
}

/// Applies an operation of two tensors.
pub fn binary<const D: usize, const E: usize, const F: usize>(
    a: impl Into<Traced<D>>,
    b: impl Into<Traced<E>>,
    op: impl HostOp,
) -> Traced<F> {
    let ((a, a_trace), (b, b_trace)) = (a.into().into_parts(), b.into().into_parts());
    let call = HostCall::new(op, vec![a_trace, b_trace]);
    let output = call.output.clone();
    let y = <Dispatch as HostOps>::host_binary(a.into_dispatch(), b.into_dispatch(), call);
    Traced::new(Tensor::from_dispatch(y), output)
}

/// Applies an operation of three tensors.
pub fn ternary<const D: usize, const E: usize>(
    a: impl Into<Traced<D>>,
    b: impl Into<Traced<D>>,
    c: impl Into<Traced<D>>,
    op: impl HostOp,
) -> Traced<E> {
    let [a, b, c] = [a.into(), b.into(), c.into()].map(Traced::into_parts);
    let call = HostCall::new(op, vec![a.1, b.1, c.1]);
    let output = call.output.clone();
    let [a, b, c] = [a.0, b.0, c.0].map(Tensor::into_dispatch);
    let y = <Dispatch as HostOps>::host_ternary(a, b, c, call);
    Traced::new(Tensor::from_dispatch(y), output)
}

/// Applies an operation of four tensors.
pub fn quaternary<const D: usize, const E: usize, const F: usize>(
    [a, b, c]: [Traced<D>; 3],
    d: impl Into<Traced<E>>,
    op: impl HostOp,
) -> Traced<F> {
    let [a, b, c] = [a, b, c].map(Traced::into_parts);
    let (d, d_trace) = d.into().into_parts();
    let call = HostCall::new(op, vec![a.1, b.1, c.1, d_trace]);
    let output = call.output.clone();
    let [a, b, c] = [a.0, b.0, c.0].map(Tensor::into_dispatch);
    let y = <Dispatch as HostOps>::host_quaternary(a, b, c, d.into_dispatch(), call);
    Traced::new(Tensor::from_dispatch(y), output)
}
