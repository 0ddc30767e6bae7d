//! Tensors whose values are read on the host.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex};
use burn::tensor::DType;
#[cfg(any(feature = "ndarray", feature = "cubecl"))]
use burn::tensor::TensorData;

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
