//! Activations with fewer bits.

use std::cell::Cell;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::FloatFormat;

thread_local! {
    static FORMAT: Cell<FloatFormat> = const { Cell::new(FloatFormat::F32) };
}

/// Lets the operations that `record` runs keep activations in `format` for their backward, which
/// widens them again. What they compute forward stays as it is; the gradients are those of the
/// rounded activations. Parameters and rotations are never rounded.
///
/// It holds for the operations of this module and for [`StoredActivation`], on the calling
/// thread. Operations that read the same [`Traced`](super::Traced) tensor share its rounded copy.
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

/// Values in a format of fewer bits.
#[derive(Debug)]
pub(super) struct Rounded {
    format: FloatFormat,
    bytes: Vec<u8>,
}

impl Rounded {
    pub(super) fn new(values: &[f32], format: FloatFormat) -> Self {
        Self {
            format,
            bytes: format.to_bytes(values),
        }
    }

    pub(super) fn format(&self) -> FloatFormat {
        self.format
    }

    pub(super) fn widened(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.bytes.len() / self.format.size()];
        self.format.decode(&self.bytes, &mut values);
        values
    }
}

/// A tensor outside of any graph, kept as [`with_activations_in`] says.
#[derive(Debug)]
pub struct StoredActivation<const D: usize>(Form<D>);

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "with GPUs a tensor is large itself, and there is one of these for each operation"
)]
enum Form<const D: usize> {
    Exact(Tensor<D>),
    Rounded {
        values: Rounded,
        dims: [usize; D],
        device: Device,
    },
}

impl<const D: usize> StoredActivation<D> {
    /// Keeps the values of `x`.
    pub fn new(x: &Tensor<D>) -> Self {
        let x = x.clone().inner();
        Self(match activation_format() {
            FloatFormat::F32 => Form::Exact(x),
            format => {
                let (dims, device) = (x.dims(), x.device());
                let data = x.into_data();
                let values = data.as_slice::<f32>().expect("activations are f32");
                let values = Rounded::new(values, format);
                Form::Rounded {
                    values,
                    dims,
                    device,
                }
            }
        })
    }

    /// The tensor, on a device without autodiff.
    pub fn into_tensor(self) -> Tensor<D> {
        match self.0 {
            Form::Exact(x) => x,
            Form::Rounded {
                values,
                dims,
                device,
            } => Tensor::from_data(TensorData::new(values.widened(), dims), &device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_holds_for_the_call_only() {
        let x = Tensor::<2>::from_data([[1.0, 1.0 + 1.0 / 512.0]], &Device::flex());
        let back = || {
            let data = StoredActivation::new(&x).into_tensor().into_data();
            data.try_into_vec::<f32>().unwrap()
        };
        let exact = back();
        assert_eq!(with_activations_in(FloatFormat::Bf16, back), [1.0, 1.0]);
        assert_eq!(back(), exact);
    }
}
