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
/// and compute the values again; where it is [kept in](Self::kept_in) fewer bits, all keep the
/// same rounded copy. A plain tensor is turned into one by [`From`], so make one of it before several
/// operations read it: each conversion is a tensor of its own, of which a rounded copy is kept.
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

    /// The same, of which operations keep the values in `format` for their backward, which widens
    /// them again. What they compute forward stays as it is; the gradients are those of the rounded
    /// values. What an operation makes of it and returns as a [`Traced`] is kept alike.
    #[must_use]
    pub fn kept_in(mut self, format: FloatFormat) -> Self {
        self.trace.format = format;
        self
    }

    /// The format in which operations keep the values.
    pub fn format(&self) -> FloatFormat {
        self.trace.format
    }

    /// The tensor alone. What reads it keeps it as any other tensor.
    pub fn into_tensor(self) -> Tensor<D> {
        self.tensor
    }

    /// The same with a node of its own in the graph: gradients of what reads it are added up before
    /// those of other readers come to them. Autodiff adds gradients in the order of the nodes' depths,
    /// which depends on everything below, and sums of floats depend on their order.
    #[must_use]
    pub fn apart(self) -> Self {
        let shape = self.tensor.dims();
        Self {
            tensor: self.tensor.reshape(shape),
            trace: self.trace,
        }
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
#[derive(Clone)]
pub struct Trace {
    format: FloatFormat,
    ways: Arc<Ways>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            format: FloatFormat::F32,
            ways: Arc::default(),
        }
    }
}

#[derive(Default)]
struct Ways {
    /// The operation that made the values, with its inputs, where computing them again is cheap.
    maker: OnceLock<Arc<dyn Any + Send + Sync>>,
    rounded: OnceLock<Arc<Rounded>>,
}

impl Trace {
    /// Of other values that are kept in the same format.
    pub(super) fn kept_as(other: &Self) -> Self {
        Self {
            format: other.format,
            ..Self::default()
        }
    }

    /// The format in which the values are kept.
    pub(super) fn format(&self) -> FloatFormat {
        self.format
    }

    /// Says that `maker` makes the values, whenever they are wanted.
    pub(super) fn made_by<T: Any + Send + Sync>(&self, maker: Arc<T>) {
        // A trace is new when an operation fills it.
        let _ = self.ways.maker.set(maker);
    }

    /// What makes the values.
    pub(super) fn maker<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ways.maker.get()?.clone().downcast().ok()
    }

    /// The values rounded to the format, from `round` for who asks first.
    pub(super) fn rounded(&self, round: impl Fn() -> Rounded) -> Arc<Rounded> {
        let shared = self.ways.rounded.get_or_init(|| Arc::new(round()));
        match shared.format() == self.format {
            true => shared.clone(),
            false => Arc::new(round()),
        }
    }
}

impl Debug for Trace {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("format", &self.format)
            .field("made_again", &self.ways.maker.get().is_some())
            .field("rounded", &self.ways.rounded.get().is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_a_tensor_share_its_rounded_copy() {
        let values: Vec<f32> = (0..50).map(|i| (i as f32).sin()).collect();
        let read = |trace: &Trace| trace.rounded(|| Rounded::new(&values, trace.format()));
        let kept_in = |trace: &Trace, format| Trace {
            format,
            ..trace.clone()
        };
        let trace = kept_in(&Trace::default(), FloatFormat::Bf16);
        let first = read(&trace);
        assert!(Arc::ptr_eq(&first, &read(&trace.clone())));
        assert!((first.widened()[20] - values[20]).abs() < 0.004);
        // Another format is not what was asked for, and another tensor has a copy of its own.
        assert_eq!(
            read(&kept_in(&trace, FloatFormat::F16)).format(),
            FloatFormat::F16
        );
        assert!(!Arc::ptr_eq(&first, &read(&Trace::kept_as(&trace))));
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
