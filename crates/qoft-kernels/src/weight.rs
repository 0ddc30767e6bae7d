//! The packed-weight trait: what a quantization scheme must be able to do.

use std::fmt::Debug;
use std::ops::Range;

use crate::compute_dtype::ComputeDtype;
use crate::device::DeviceWeight;
use crate::error::WeightError;
use crate::floats::FloatFormat;
use crate::row::InputRow;
use crate::scratch::with_scratch;
use crate::vector::dot;
use crate::wide;

/// A weight matrix `W` of shape `[out_features, in_features]` in a packed form.
///
/// The one required computation is decoding a tile; matrix products, gradients and threads
/// are built on it. No method may materialize the whole matrix.
pub trait PackedWeight: Debug + Send + Sync {
    /// `[out_features, in_features]`.
    fn shape(&self) -> [usize; 2];

    /// Decodes rows `rows` and columns `cols` into `out`, row-major, without gaps.
    ///
    /// `out.len()` equals `rows.len() * cols.len()`; both ranges lie inside [`Self::shape`].
    fn decode_tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]);

    /// Lends a tile, decoding into `scratch` unless the values already lie in memory as `f32`.
    ///
    /// `scratch` holds at least `rows.len() * cols.len()` elements.
    fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &'a mut [f32],
    ) -> Tile<'a> {
        let row_stride = cols.len();
        let scratch = &mut scratch[..rows.len() * row_stride];
        self.decode_tile(rows, cols, scratch);
        Tile {
            data: scratch,
            row_stride,
        }
    }

    /// `out[i] = Σ w[rows.start + i, k] · x[k]`, for products with a single row of activations:
    /// those are bound by reading the packed bytes, so a form that need not store decoded values
    /// is faster. There is one output for each of `rows`.
    fn dot(&self, rows: Range<usize>, x: &InputRow, out: &mut [f32]) {
        for (row, out) in rows.zip(out) {
            *out = dot_decoded(self, row, x.values());
        }
    }

    /// The same weight with its input features in another order, and where each of them is there;
    /// `None` if there is no order in which it decodes faster. Products put their activations in
    /// that order.
    fn reordered(&self) -> Option<(&dyn PackedWeight, &[u32])> {
        None
    }

    /// The bytes of all codes or values, if those of a row follow each other, all as large, and rows do so as
    /// well: products ask for them before they decode them. `None` where they lie otherwise.
    fn rows_in_memory(&self) -> Option<&[u8]> {
        None
    }

    /// The dtype in which products of many rows with it are computed.
    fn compute_dtype(&self) -> ComputeDtype {
        ComputeDtype::F32
    }

    /// The weight as GPUs decode it; `None` where they cannot: tiles of it are then decoded here,
    /// one after another, each time it is used.
    fn device_weight(&self) -> Option<DeviceWeight> {
        None
    }

    /// Bytes that this weight holds: codes plus scales, tables and the like.
    fn packed_bytes(&self) -> usize;

    /// What `qoft inspect` prints about this weight.
    fn info(&self) -> WeightInfo;
}

/// A row of [`PackedWeight::dot`] by way of decoded pieces.
pub(crate) fn dot_decoded(weight: &(impl PackedWeight + ?Sized), row: usize, x: &[f32]) -> f32 {
    /// Columns that are decoded at once.
    const COLS: usize = 1024;
    let mut sum = 0.0;
    with_scratch(COLS, |scratch| {
        for (i, x) in x.chunks(COLS).enumerate() {
            let cols = i * COLS..i * COLS + x.len();
            let tile = weight.tile(row..row + 1, cols, scratch);
            sum += wide!(dot(x, &tile.data[..x.len()]));
        }
    });
    sum
}

/// A tile of decoded values: element (row, col) lies at `row * row_stride + col`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Tile<'a> {
    /// The values, starting with the tile's first one.
    pub data: &'a [f32],
    /// Distance between two rows, in elements.
    pub row_stride: usize,
}

impl<'a> Tile<'a> {
    /// The tile that starts with `data`, and whose rows are so many elements apart.
    pub fn new(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride }
    }
}

/// A weight's quantization in the field's terms.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WeightInfo {
    /// Bits of one code, or of one value of a dense weight.
    pub bits: u32,
    /// Weights that share a scale; `None` where there are no groups or a whole row is one.
    pub group_size: Option<usize>,
    /// Name of the number format: `nf4`, `int8`, `bf16` …
    pub format: String,
    /// The format of the values where they are stored as plain floats, not quantized.
    pub dense: Option<FloatFormat>,
}

impl WeightInfo {
    /// Of plain floats.
    pub fn dense(format: FloatFormat) -> Self {
        Self {
            bits: format.size() as u32 * 8,
            group_size: None,
            format: format.name().into(),
            dense: Some(format),
        }
    }

    /// Of codes of `bits` bits with scales.
    pub fn quantized(bits: u32, group_size: Option<usize>, format: impl Into<String>) -> Self {
        Self {
            bits,
            group_size,
            format: format.into(),
            dense: None,
        }
    }
}

/// Fails if a value is infinite or not a number, as the product of a large scale may be.
///
/// Decodes the weight row by row, so it is for weights that give a reason to doubt them.
///
/// # Errors
/// If there is such a value.
pub fn check_finite(weight: &dyn PackedWeight) -> Result<(), WeightError> {
    let [rows, cols] = weight.shape();
    let mut values = vec![0.0; cols];
    for row in 0..rows {
        weight.decode_tile(row..row + 1, 0..cols, &mut values);
        if values.iter().any(|v| !v.is_finite()) {
            return Err(WeightError::NotFinite("weights"));
        }
    }
    Ok(())
}
