//! A layer's weight that adapters can be multiplied into, and taken out of again.

use std::sync::Arc;

use burn::tensor::Device;
use qoft_kernels::{ComputeDtype, DenseWeight, FloatFormat, Matrix, PackedWeight, computed_in};

use crate::still::Moves;

/// The weight of a layer as merges see it. [`Frozen`] is one, for any [`WeightForm`].
pub trait Mergeable {
    /// The weight as it is, with what is merged: a matrix whose rows a rotation turns.
    fn rows(&self) -> Matrix;

    /// Whether it holds just what a merged weight does: plain `f32`. Merged adapters are taken out
    /// of such a weight by their inverses; any other is kept.
    fn is_f32(&self) -> bool;

    /// Whether a weight is kept that unmerging brings back.
    fn has_original(&self) -> bool;

    /// Replaces the weight by a dense one.
    fn replace(&mut self, rows: &Matrix, original: Original);

    /// Brings back the weight that is kept.
    fn restore(&mut self);
}

/// What is kept, for unmerging, when a weight is replaced.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Original {
    /// What was kept before, or nothing.
    AsBefore,
    /// The weight that is replaced.
    Replaced,
    /// These rows.
    Rows(Matrix),
}

/// A form in which a layer has its weight.
pub trait WeightForm: Moves {
    /// The matrix whose rows a rotation turns.
    fn to_rows(&self) -> Matrix;

    /// A dense weight for the same layer.
    #[must_use]
    fn with_rows(&self, rows: &Matrix) -> Self;

    /// Whether it is plain `f32`.
    fn is_f32(&self) -> bool;
}

impl WeightForm for Arc<dyn PackedWeight> {
    fn to_rows(&self) -> Matrix {
        Matrix::decode(&**self)
    }

    fn with_rows(&self, rows: &Matrix) -> Self {
        let dense = DenseWeight::from_f32(&rows.values, rows.shape);
        computed_in(Arc::new(dense), self.compute_dtype())
    }

    fn is_f32(&self) -> bool {
        self.info().dense == Some(FloatFormat::F32)
    }
}

/// The weight of a layer, as it is or with merged adapters.
#[derive(Debug, Clone)]
pub struct Frozen<W> {
    current: W,
    /// The weight as it was, where the inverse rotations would not bring it back exactly.
    original: Option<W>,
}

impl<W> Frozen<W> {
    /// A weight without merged adapters.
    pub fn new(weight: W) -> Self {
        Self {
            current: weight,
            original: None,
        }
    }

    /// The weight as it is, with what is merged.
    pub fn get(&self) -> &W {
        &self.current
    }
}

impl Frozen<Arc<dyn PackedWeight>> {
    /// Lets products be computed in this dtype, also after what is merged is taken out again.
    pub fn set_compute_dtype(&mut self, dtype: ComputeDtype) {
        self.current = computed_in(self.current.clone(), dtype);
        self.original = self
            .original
            .take()
            .map(|weight| computed_in(weight, dtype));
    }
}

impl<W: Moves> Moves for Frozen<W> {
    fn moved(self, device: &Device) -> Self {
        Self {
            current: self.current.moved(device),
            original: self.original.map(|weight| weight.moved(device)),
        }
    }

    fn place(&self) -> Option<Device> {
        self.current.place()
    }
}

impl<W: WeightForm> Mergeable for Frozen<W> {
    fn rows(&self) -> Matrix {
        self.current.to_rows()
    }

    fn is_f32(&self) -> bool {
        self.current.is_f32()
    }

    fn has_original(&self) -> bool {
        self.original.is_some()
    }

    fn replace(&mut self, rows: &Matrix, original: Original) {
        let weight = self.current.with_rows(rows);
        match original {
            Original::AsBefore => (),
            Original::Replaced => self.original = Some(self.current.clone()),
            Original::Rows(rows) => self.original = Some(self.current.with_rows(&rows)),
        }
        self.current = weight;
    }

    fn restore(&mut self) {
        if let Some(original) = self.original.take() {
            self.current = original;
        }
    }
}
