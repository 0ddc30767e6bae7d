//! Activations with fewer bits.

use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::FloatFormat;

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

/// A tensor outside of any graph, with as few bits as wanted.
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
    /// Keeps the values of `x` in `format`.
    pub fn new(x: &Tensor<D>, format: FloatFormat) -> Self {
        let x = x.clone().inner();
        Self(match format {
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
    fn values_come_back_as_the_format_has_them() {
        let x = Tensor::<2>::from_data([[1.0, 1.0 + 1.0 / 512.0]], &Device::flex());
        let back = |format| {
            let data = StoredActivation::new(&x, format).into_tensor().into_data();
            data.try_into_vec::<f32>().unwrap()
        };
        assert_eq!(back(FloatFormat::F32), [1.0, 1.0 + 1.0 / 512.0]);
        assert_eq!(back(FloatFormat::Bf16), [1.0, 1.0]);
    }
}
