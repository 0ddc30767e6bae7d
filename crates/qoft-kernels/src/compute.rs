//! The dtype in which products are computed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::DeviceWeight;
use crate::gemm::multiplies_pairs;
use crate::row::InputRow;
use crate::weight::{PackedWeight, Tile, WeightInfo};

/// The dtype to which both factors of a product with a frozen weight are rounded. Sums are `f32`, as is
/// all that is no such product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bfloat16, where there are more rows than a few: products of few are bound by reading the weight, which
    /// stays packed.
    Bf16,
}

impl ComputeDtype {
    /// What it is called in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this machine's processor multiplies it faster than by way of `f32`.
    pub fn is_native(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => multiplies_pairs(),
        }
    }
}

impl fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The same weight with products in `dtype`.
pub fn computed_in(weight: Arc<dyn PackedWeight>, dtype: ComputeDtype) -> Arc<dyn PackedWeight> {
    match weight.compute_dtype() == dtype {
        true => weight,
        false => Arc::new(Computed { weight, dtype }),
    }
}

/// A weight whose products are computed in another dtype.
#[derive(Debug)]
struct Computed {
    weight: Arc<dyn PackedWeight>,
    dtype: ComputeDtype,
}

impl PackedWeight for Computed {
    fn shape(&self) -> [usize; 2] {
        self.weight.shape()
    }

    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        self.weight.decode_tile(rows, cols, out);
    }

    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'a mut [f32],
    ) -> Tile<'a> {
        self.weight.tile(rows, cols, scratch)
    }

    fn dot(&self, rows: Range<usize>, x: &InputRow, out: &mut [f32]) {
        self.weight.dot(rows, x, out);
    }

    fn reordered(&self) -> Option<(&dyn PackedWeight, &[u32])> {
        self.weight.reordered()
    }

    fn rows_in_memory(&self) -> Option<&[u8]> {
        self.weight.rows_in_memory()
    }

    fn compute_dtype(&self) -> ComputeDtype {
        self.dtype
    }

    fn device_weight(&self) -> Option<DeviceWeight> {
        self.weight.device_weight()
    }

    fn packed_bytes(&self) -> usize {
        self.weight.packed_bytes()
    }

    fn info(&self) -> WeightInfo {
        self.weight.info()
    }
}
