//! The product with a packed weight as an operation of Burn's.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::PackedWeight;

use super::host::HostTensors;

/// A weight shared between the forward and the backward pass.
pub type SharedWeight = Arc<dyn PackedWeight>;

/// Burn backends that multiply with packed weights.
#[backend_extension(
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cubecl"),
    Autodiff
)]
pub trait PackedOps: Backend {
    /// `x · Wᵀ` over the last dimension of `x`, or with `transpose` `x · W`.
    fn packed_matmul(
        x: FloatTensor<Self>,
        weight: SharedWeight,
        transpose: bool,
    ) -> FloatTensor<Self>;
}

/// The shape of the product with `x` of shape `x`.
pub(super) fn product_shape(x: &[usize], weight: [usize; 2], transpose: bool) -> Vec<usize> {
    let mut shape = x.to_vec();
    *shape.last_mut().expect("rank 1 or more") = weight[usize::from(transpose)];
    shape
}

macro_rules! on_host {
    ($backend:ty) => {
        impl PackedOps for $backend {
            fn packed_matmul(
                x: FloatTensor<Self>,
                weight: SharedWeight,
                transpose: bool,
            ) -> FloatTensor<Self> {
                let shape = product_shape(&x.shape(), weight.shape(), transpose);
                let device = x.device();
                let x = <Self as HostTensors>::hold(x);
                let y = qoft_kernels::ops::packed_matmul(x.as_ref(), &*weight, transpose);
                Self::float_from_data(TensorData::new(y, shape), &device)
            }
        }
    };
}

on_host!(Flex);
#[cfg(feature = "ndarray")]
on_host!(burn::backend::NdArray);

impl<B: PackedOps, C: CheckpointStrategy> PackedOps for Autodiff<B, C> {
    fn packed_matmul(
        x: FloatTensor<Self>,
        weight: SharedWeight,
        transpose: bool,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match PackedBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = B::packed_matmul(x, weight.clone(), transpose);
                prep.finish((weight, transpose), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::packed_matmul(x, weight, transpose)),
        }
    }
}

/// The gradient of the input; it needs the frozen weight alone.
#[derive(Debug)]
struct PackedBackward;

impl<B: PackedOps> Backward<B, 1> for PackedBackward {
    type State = (SharedWeight, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (weight, transpose) = ops.state;
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let grad = B::packed_matmul(grad, weight, !transpose);
            grads.register::<B>(parent.id, grad);
        }
    }
}

/// `x · Wᵀ` over the last dimension of `x`, or with `transpose` `x · W`.
pub(super) fn matmul<const D: usize>(
    x: Tensor<D>,
    weight: &SharedWeight,
    transpose: bool,
) -> Tensor<D> {
    let x = x.into_dispatch();
    let y = <Dispatch as PackedOps>::packed_matmul(x, weight.clone(), transpose);
    Tensor::from_dispatch(y)
}
