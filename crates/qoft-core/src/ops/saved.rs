//! What a graph keeps for the backward, if wanted with fewer bits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use burn::backend::tensor::FloatTensor;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::FloatFormat;

use super::bridge::HostTensors;

thread_local! {
    static FORMAT: Cell<FloatFormat> = const { Cell::new(FloatFormat::F32) };
    /// Rounded activations by where the original lies, so that operations that read the same
    /// tensor share its copy.
    static ROUNDED: RefCell<HashMap<usize, Weak<Rounded>>> = RefCell::default();
}

/// Lets the operations that `record` runs keep activations in `format` for their backward, which
/// widens them again. What they compute forward stays as it is; the gradients are those of the
/// rounded activations. Parameters and rotations are never rounded.
///
/// It holds for the operations of this module and for [`Kept`], on the calling thread.
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

/// A tensor of values with fewer bits.
#[derive(Debug)]
struct Rounded {
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

    fn widened(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.bytes.len() / self.format.size()];
        self.format.decode(&self.bytes, &mut values);
        values
    }
}

/// The rounded values; the same allocation for values that were rounded from the same place
/// before.
fn rounded(values: &[f32], format: FloatFormat) -> Arc<Rounded> {
    let new = Rounded::new(values, format);
    ROUNDED.with_borrow_mut(|known| {
        let place = values.as_ptr() as usize;
        // Another tensor may have taken the place, so the values decide.
        let old = known.get(&place).and_then(Weak::upgrade);
        if let Some(old) = old.filter(|old| old.format == format && old.bytes == new.bytes) {
            return old;
        }
        if known.len() >= 64 {
            known.retain(|_, rounded| rounded.strong_count() > 0);
        }
        let new = Arc::new(new);
        known.insert(place, Arc::downgrade(&new));
        new
    })
}

/// An input that a backward reads.
#[derive(Debug, Clone)]
pub(super) enum Saved<B: HostTensors> {
    Exact(FloatTensor<B>),
    Rounded(RoundedInput),
}

/// Rounded values that several operations may share.
#[derive(Debug, Clone)]
pub(super) struct RoundedInput(Arc<Rounded>);

impl<B: HostTensors> Saved<B> {
    /// Keeps a tensor; `activation` says whether it may be rounded.
    pub(super) fn new(tensor: &FloatTensor<B>, activation: bool) -> Self {
        match FORMAT.get() {
            FloatFormat::F32 => Self::Exact(tensor.clone()),
            _ if !activation => Self::Exact(tensor.clone()),
            format => {
                let held = B::hold(tensor.clone());
                Self::Rounded(RoundedInput(rounded(held.as_ref(), format)))
            }
        }
    }

    /// The values.
    pub(super) fn hold(self) -> Held<B> {
        match self {
            Self::Exact(tensor) => Held::Exact(B::hold(tensor)),
            Self::Rounded(RoundedInput(rounded)) => Held::Widened(rounded.widened()),
        }
    }
}

/// Values of a [`Saved`] input.
pub(super) enum Held<B: HostTensors> {
    Exact(B::Held),
    Widened(Vec<f32>),
}

impl<B: HostTensors> AsRef<[f32]> for Held<B> {
    fn as_ref(&self) -> &[f32] {
        match self {
            Self::Exact(held) => held.as_ref(),
            Self::Widened(values) => values,
        }
    }
}

/// A tensor outside of any graph that is kept as [`with_activations_in`] says.
#[derive(Debug)]
pub struct Kept<const D: usize>(Stored<D>);

#[derive(Debug)]
enum Stored<const D: usize> {
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
        Self(match FORMAT.get() {
            FloatFormat::F32 => Stored::Exact(x),
            format => {
                let (dims, device) = (x.dims(), x.device());
                let data = x.into_data();
                let values = data.as_slice::<f32>().expect("activations are f32");
                let values = Rounded::new(values, format);
                Stored::Rounded {
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
            Stored::Exact(x) => x,
            Stored::Rounded {
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
    fn readers_of_a_tensor_share_its_rounded_copy() {
        let values: Vec<f32> = (0..50).map(|i| (i as f32).sin()).collect();
        let a = rounded(&values, FloatFormat::Bf16);
        assert!(Arc::ptr_eq(&a, &rounded(&values, FloatFormat::Bf16)));
        // Another tensor at the same place.
        let mut values = values;
        values[7] = 3.0;
        let b = rounded(&values, FloatFormat::Bf16);
        assert!(!Arc::ptr_eq(&a, &b));
        assert_eq!((a.bytes.len(), b.widened()[7]), (100, 3.0));
        assert!((a.widened()[20] - values[20]).abs() < 0.004);
    }

    #[test]
    fn the_format_holds_for_the_call_only() {
        let x = Tensor::<2>::from_data([[1.0, 1.0 + 1.0 / 512.0]], &Device::flex());
        let back = || Kept::new(&x).into_tensor().into_data();
        let exact = back();
        let rounded = with_activations_in(FloatFormat::Bf16, back);
        assert_eq!(rounded.try_into_vec::<f32>().unwrap(), [1.0, 1.0]);
        assert_eq!(back(), exact);
    }
}
