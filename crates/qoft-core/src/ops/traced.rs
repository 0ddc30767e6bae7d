//! Tensors that know how graphs keep their values.

use std::any::Any;
use std::fmt::{Debug, Formatter};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use qoft_kernels::FloatFormat;

use super::rounded::Rounded;

/// A tensor with what its readers know of each other: clones of it are one value for all
/// operations that keep it for their backward.
///
/// Where the operation that made it is [cheap](qoft_kernels::HostOp::cheap), they keep nothing
/// and compute the values again; where activations are
/// [rounded](super::with_activations_in), all keep the same rounded copy. A plain tensor is turned
/// into one by [`From`], so make one of it before several operations read it: each conversion is a
/// tensor of its own, of which a rounded copy is kept.
#[derive(Debug, Clone)]
pub struct Traced<const D: usize> {
    tensor: Tensor<D>,
    trace: Trace,
}

impl<const D: usize> Traced<D> {
    pub(super) fn new(tensor: Tensor<D>, trace: Trace) -> Self {
        Self { tensor, trace }
    }

    pub(super) fn into_parts(self) -> (Tensor<D>, Trace) {
        (self.tensor, self.trace)
    }

    /// The tensor alone. What reads it keeps it as any other tensor.
    pub fn into_tensor(self) -> Tensor<D> {
        self.tensor
    }

    /// The same values in another shape, of which nothing more is kept.
    pub fn reshape<const E: usize>(self, shape: [usize; E]) -> Traced<E> {
        let tensor = match self.tensor.dims()[..] == shape[..] {
            true => Tensor::from_dispatch(self.tensor.into_dispatch()),
            false => self.tensor.reshape(shape),
        };
        Traced {
            tensor,
            trace: self.trace,
        }
    }
}

impl<const D: usize> From<Tensor<D>> for Traced<D> {
    fn from(tensor: Tensor<D>) -> Self {
        Self {
            tensor,
            trace: Trace::default(),
        }
    }
}

impl<const D: usize> From<Traced<D>> for Tensor<D> {
    fn from(traced: Traced<D>) -> Self {
        traced.tensor
    }
}

impl<const D: usize> Deref for Traced<D> {
    type Target = Tensor<D>;

    fn deref(&self) -> &Tensor<D> {
        &self.tensor
    }
}

/// How the values of one tensor are kept by the operations that read it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Ways>);

#[derive(Default)]
struct Ways {
    /// The operation that made the values, with its inputs, where computing them again is cheap.
    maker: OnceLock<Arc<dyn Any + Send + Sync>>,
    rounded: OnceLock<Arc<Rounded>>,
}

impl Trace {
    /// Says that `maker` makes the values, whenever they are wanted.
    pub(super) fn made_by<T: Any + Send + Sync>(&self, maker: Arc<T>) {
        // A trace is new when an operation fills it.
        let _ = self.0.maker.set(maker);
    }

    /// What makes the values.
    pub(super) fn maker<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.maker.get()?.clone().downcast().ok()
    }

    /// The rounded values, from `round` for who asks first.
    pub(super) fn rounded(&self, format: FloatFormat, round: impl Fn() -> Rounded) -> Arc<Rounded> {
        let shared = self.0.rounded.get_or_init(|| Arc::new(round()));
        match shared.format() == format {
            true => shared.clone(),
            false => Arc::new(round()),
        }
    }
}

impl Debug for Trace {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("made_again", &self.0.maker.get().is_some())
            .field("rounded", &self.0.rounded.get().is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_a_tensor_share_its_rounded_copy() {
        let values: Vec<f32> = (0..50).map(|i| (i as f32).sin()).collect();
        let read = |trace: &Trace, format| trace.rounded(format, || Rounded::new(&values, format));
        let trace = Trace::default();
        let first = read(&trace, FloatFormat::Bf16);
        assert!(Arc::ptr_eq(
            &first,
            &read(&trace.clone(), FloatFormat::Bf16)
        ));
        assert!((first.widened()[20] - values[20]).abs() < 0.004);
        // Another format is not what was asked for, and another tensor has a copy of its own.
        let half = read(&trace, FloatFormat::F16);
        assert_eq!(half.format(), FloatFormat::F16);
        let other = read(&Trace::default(), FloatFormat::Bf16);
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn a_maker_is_found_by_its_type() {
        let trace = Trace::default();
        assert!(trace.maker::<u32>().is_none());
        trace.made_by(Arc::new(7_u32));
        assert_eq!(trace.clone().maker::<u32>().as_deref(), Some(&7));
        assert!(trace.maker::<u64>().is_none());
    }
}
