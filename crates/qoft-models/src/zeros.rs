//! A weight without values, for models of which only the layers are wanted.

use std::ops::Range;

use qoft_core::kernels::FloatFormat;
use qoft_core::{PackedWeight, WeightInfo};

/// A weight of zeros, in no memory.
#[derive(Debug)]
pub struct Zeros(pub [usize; 2]);

impl PackedWeight for Zeros {
    fn shape(&self) -> [usize; 2] {
        self.0
    }

    fn decode_tile(&self, _rows: Range<usize>, _cols: Range<usize>, out: &mut [f32]) {
        out.fill(0.0);
    }

    fn packed_bytes(&self) -> usize {
        0
    }

    fn info(&self) -> WeightInfo {
        WeightInfo::dense(FloatFormat::F32)
    }
}
