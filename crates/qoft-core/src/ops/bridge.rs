//! The bridge between host operations and Burn's tensors.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor, TensorData};
use qoft_kernels::{HostOp, HostView};
use std::sync::Arc;

use super::SharedOp;
use super::saved::Recorded;

/// Burn backends that run host operations of one to three tensors.
#[backend_extension(
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cubecl"),
    Autodiff
)]
pub trait HostOps: Backend {
    /// An operation of one tensor.
    fn host_unary(a: FloatTensor<Self>, op: SharedOp) -> FloatTensor<Self>;

    /// An operation of two tensors.
    fn host_binary(a: FloatTensor<Self>, b: FloatTensor<Self>, op: SharedOp) -> FloatTensor<Self>;

    /// An operation of three tensors.
    fn host_ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: SharedOp,
    ) -> FloatTensor<Self>;
}

/// Backends whose tensors can be borrowed as contiguous `f32` values.
pub trait HostTensors: Backend {
    /// Keeps the values alive while they are borrowed.
    type Held: AsRef<[f32]>;

    /// The values of a tensor, row-major, without copying them where that is possible.
    fn hold(tensor: FloatTensor<Self>) -> Self::Held;
}

/// A contiguous tensor of the Flex backend.
pub struct FlexHeld(FloatTensor<Flex>);

impl AsRef<[f32]> for FlexHeld {
    fn as_ref(&self) -> &[f32] {
        self.0.as_slice::<f32>().expect("contiguous")
    }
}

impl HostTensors for Flex {
    type Held = FlexHeld;

    fn hold(tensor: FloatTensor<Self>) -> FlexHeld {
        assert_eq!(tensor.dtype(), DType::F32, "host operations compute in f32");
        // Not by `to_contiguous`: that copies a part of a larger tensor even if it has no gaps.
        let contiguous = tensor.is_contiguous();
        FlexHeld(if contiguous {
            tensor
        } else {
            tensor.to_contiguous()
        })
    }
}

/// A tensor's values, copied out of a backend.
#[cfg(any(feature = "ndarray", feature = "cubecl"))]
pub struct Copied(TensorData);

#[cfg(any(feature = "ndarray", feature = "cubecl"))]
impl Copied {
    /// Waits for the values.
    pub(super) fn read<B: Backend>(tensor: FloatTensor<B>) -> Self {
        let data = burn::tensor::try_read_sync(B::float_into_data(tensor));
        Self(
            data.expect("native programs can wait")
                .expect("readable tensor"),
        )
    }
}

#[cfg(any(feature = "ndarray", feature = "cubecl"))]
impl AsRef<[f32]> for Copied {
    fn as_ref(&self) -> &[f32] {
        self.0
            .as_slice::<f32>()
            .expect("host operations compute in f32")
    }
}

#[cfg(feature = "ndarray")]
impl HostTensors for burn::backend::NdArray {
    type Held = Copied;

    fn hold(tensor: FloatTensor<Self>) -> Copied {
        Copied::read::<Self>(tensor)
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
            fn host_unary(a: FloatTensor<Self>, op: SharedOp) -> FloatTensor<Self> {
                run::<Self>(vec![a], &*op, false).0
            }

            fn host_binary(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                op: SharedOp,
            ) -> FloatTensor<Self> {
                run::<Self>(vec![a, b], &*op, false).0
            }

            fn host_ternary(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
                op: SharedOp,
            ) -> FloatTensor<Self> {
                run::<Self>(vec![a, b, c], &*op, false).0
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
    fn host_unary(a: FloatTensor<Self>, op: SharedOp) -> FloatTensor<Self> {
        tracked::<B, C, 1>([a], op)
    }

    fn host_binary(a: FloatTensor<Self>, b: FloatTensor<Self>, op: SharedOp) -> FloatTensor<Self> {
        tracked::<B, C, 2>([a, b], op)
    }

    fn host_ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: SharedOp,
    ) -> FloatTensor<Self> {
        tracked::<B, C, 3>([a, b, c], op)
    }
}

/// The backward of any host operation.
#[derive(Debug)]
struct HostBackward;

/// What a backward step keeps.
#[derive(Debug, Clone)]
struct Kept<B: HostTensors> {
    recorded: Arc<Recorded<B>>,
    saved: Arc<Vec<f32>>,
}

fn tracked<B: HostTensors, C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    op: SharedOp,
) -> FloatTensor<Autodiff<B, C>> {
    let ids = inputs.each_ref().map(|tensor| tensor.id());
    let (tensors, nodes): (Vec<_>, Vec<_>) = inputs.into_iter().map(|t| t.into_parts()).unzip();
    let nodes = nodes.try_into().expect("as many nodes as inputs");
    match <HostBackward as Backward<B, N>>::prepare::<C>(HostBackward, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let recorded = Recorded::<B>::new(op, &tensors, &ids);
            let (out, saved) = run::<B>(tensors, &*recorded.op, true);
            let kept = Kept {
                recorded: recorded.clone(),
                saved: Arc::new(saved),
            };
            let out = prep.finish(kept, out);
            recorded.made(out.id());
            out
        }
        OpsKind::UnTracked(prep) => prep.finish(run::<B>(tensors, &*op, false).0),
    }
}

impl<B: HostTensors, const N: usize> Backward<B, N> for HostBackward {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Kept<B>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (device, grad_shape) = (grad.device(), grad.shape().to_vec());
        let grad = B::hold(grad);
        let Kept { recorded, saved } = ops.state;
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
pub fn unary<const D: usize, const E: usize>(a: Tensor<D>, op: impl HostOp) -> Tensor<E> {
    Tensor::from_dispatch(<Dispatch as HostOps>::host_unary(
        a.into_dispatch(),
        Arc::new(op),
    ))
}

/// Applies an operation of two tensors.
pub fn binary<const D: usize, const E: usize, const F: usize>(
    a: Tensor<D>,
    b: Tensor<E>,
    op: impl HostOp,
) -> Tensor<F> {
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(<Dispatch as HostOps>::host_binary(a, b, Arc::new(op)))
}

/// Applies an operation of three tensors.
pub fn ternary<const D: usize, const E: usize>(
    a: Tensor<D>,
    b: Tensor<D>,
    c: Tensor<D>,
    op: impl HostOp,
) -> Tensor<E> {
    let (a, b, c) = (a.into_dispatch(), b.into_dispatch(), c.into_dispatch());
    Tensor::from_dispatch(<Dispatch as HostOps>::host_ternary(a, b, c, Arc::new(op)))
}
