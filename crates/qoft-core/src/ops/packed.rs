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
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension,
};
use burn::tensor::{Tensor, TensorData};
use qoft_kernels::{HostView, PackedWeight};

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

    /// `x · blockdiag(blocks) · Wᵀ` of one row for each weight and its blocks, one after another: `[1, ..]`. Without
    /// a weight blocks are there in vain. It has no backward.
    fn turned_matmul(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        weights: SharedWeights,
    ) -> FloatTensor<Self>;
}

/// Weights of products that are made at once.
pub type SharedWeights = Arc<[SharedWeight]>;

/// Products that are made at once, at most.
pub(super) const MOST: usize = 3;

/// The shape of the product with `x` of shape `x`.
pub(super) fn product_shape(x: &[usize], weight: [usize; 2], transpose: bool) -> Vec<usize> {
    let mut shape = x.to_vec();
    *shape.last_mut().expect("rank 1 or more") = weight[usize::from(transpose)];
    shape
}

/// The products of [`PackedOps::turned_matmul`], made on the host.
pub(super) fn turned_on_host<B: HostTensors>(
    x: FloatTensor<B>,
    blocks: [FloatTensor<B>; MOST],
    weights: &[SharedWeight],
) -> FloatTensor<B> {
    let device = x.device();
    let shapes = blocks.each_ref().map(|blocks| blocks.shape().to_vec());
    let (x, blocks) = (B::hold(x), blocks.map(B::hold));
    let views = shapes.iter().zip(&blocks);
    let views = views.map(|(shape, blocks)| HostView::new(shape, blocks.as_ref()));
    let products = views.zip(weights.iter().map(|weight| &**weight));
    let products: Vec<_> = products.collect();
    let y = qoft_kernels::ops::turned_matmul_each(x.as_ref(), &products);
    let shape = vec![1, y.len()];
    B::float_from_data(TensorData::new(y, shape), &device)
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

            fn turned_matmul(
                x: FloatTensor<Self>,
                first: FloatTensor<Self>,
                second: FloatTensor<Self>,
                third: FloatTensor<Self>,
                weights: SharedWeights,
            ) -> FloatTensor<Self> {
                turned_on_host::<Self>(x, [first, second, third], &weights)
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

    fn turned_matmul(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        weights: SharedWeights,
    ) -> FloatTensor<Self> {
        let tensors = [x, first, second, third];
        let [x, first, second, third] = tensors.map(<Self as AutodiffBackend>::inner);
        let y = B::turned_matmul(x, first, second, third, weights);
        <Self as AutodiffBackend>::from_inner(y)
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

/// `x · blockdiag(blocks) · Wᵀ` of one row for each pair of blocks and a weight, at most [`MOST`], one after
/// another; without a graph.
pub(super) fn turned(x: Tensor<2>, blocks: Vec<Tensor<3>>, weights: SharedWeights) -> Tensor<2> {
    let blocks = blocks.into_iter().map(Tensor::into_dispatch);
    let mut blocks: Vec<_> = blocks.collect();
    // What is there in vain is a handle more.
    let last = blocks.last().expect("one pair at least").clone();
    blocks.resize(MOST, last);
    let [first, second, third] = blocks.try_into().expect("as many as that");
    let x = x.into_dispatch();
    let y = <Dispatch as PackedOps>::turned_matmul(x, first, second, third, weights);
    Tensor::from_dispatch(y)
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
