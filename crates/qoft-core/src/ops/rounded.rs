//! Activations with fewer bits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::FloatFormat;

use super::saved::{MANY, activation_format};

thread_local! {
    /// Rounded tensors by where the original lies.
    static KNOWN: RefCell<HashMap<usize, Weak<Rounded>>> = RefCell::default();
}

/// Values in a format of fewer bits.
#[derive(Debug)]
pub(super) struct Rounded {
    format: FloatFormat,
    bytes: Vec<u8>,
}

impl Rounded {
    fn new(values: &[f32], format: FloatFormat) -> Self {
        Self {
            format,
            bytes: format.to_bytes(values),
        }
    }

    pub(super) fn widened(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.bytes.len() / self.format.size()];
        self.format.decode(&self.bytes, &mut values);
        values
    }
}

/// The rounded values. Operations that read the same tensor share them.
pub(super) fn shared(values: &[f32], format: FloatFormat) -> Arc<Rounded> {
    let new = Rounded::new(values, format);
    KNOWN.with_borrow_mut(|known| {
        let place = values.as_ptr() as usize;
        // Another tensor may have taken the place, so the values decide.
        let old = known.get(&place).and_then(Weak::upgrade);
        if let Some(old) = old.filter(|old| old.format == format && old.bytes == new.bytes) {
            return old;
        }
        if known.len() >= MANY {
            known.retain(|_, rounded| rounded.strong_count() > 0);
        }
        let new = Arc::new(new);
        known.insert(place, Arc::downgrade(&new));
        new
    })
}

/// A tensor outside of any graph, kept as [`with_activations_in`](super::with_activations_in)
/// says.
#[derive(Debug)]
pub struct Kept<const D: usize>(Form<D>);

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

impl<const D: usize> Kept<D> {
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
    use super::super::with_activations_in;
    use super::*;

    #[test]
    fn readers_of_a_tensor_share_its_rounded_copy() {
        let mut values: Vec<f32> = (0..50).map(|i| (i as f32).sin()).collect();
        let a = shared(&values, FloatFormat::Bf16);
        assert!(Arc::ptr_eq(&a, &shared(&values, FloatFormat::Bf16)));
        // Another tensor at the same place.
        values[7] = 3.0;
        let b = shared(&values, FloatFormat::Bf16);
        assert!(!Arc::ptr_eq(&a, &b));
        assert_eq!((a.bytes.len(), b.widened()[7]), (100, 3.0));
        assert!((a.widened()[20] - values[20]).abs() < 0.004);
    }

    #[test]
    fn the_format_holds_for_the_call_only() {
        let x = Tensor::<2>::from_data([[1.0, 1.0 + 1.0 / 512.0]], &Device::flex());
        let back = || {
            let data = Kept::new(&x).into_tensor().into_data();
            data.try_into_vec::<f32>().unwrap()
        };
        let exact = back();
        assert_eq!(with_activations_in(FloatFormat::Bf16, back), [1.0, 1.0]);
        assert_eq!(back(), exact);
    }
}
