//! Weights whose products are computed in another dtype.

use std::ops::Range;
use std::sync::Arc;

use crate::compute_dtype::ComputeDtype;
use crate::device::DeviceWeight;
use crate::row::InputRow;
use crate::weight::{PackedWeight, Tile, WeightInfo};

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
