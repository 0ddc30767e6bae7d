//! Packed weights, tile decoders and CPU kernels.
//!
//! This crate knows neither Burn nor any checkpoint format. A quantized weight is a
//! [`PackedWeight`]: something that decodes tiles of itself. [`GroupedWeight`] covers the
//! common layouts (codes, a map, scales by group), [`DenseWeight`] the plain ones.
//!
//! Everything that computes is a [`HostOp`]: an operation on `f32` slices with a handwritten
//! backward. One bridge makes all of them operations of an autodiff framework.

mod decode;
mod dense;
mod gemm;
mod grouped;
mod op;
pub mod ops;
mod weight;

pub use decode::simd_level;
pub use dense::{DenseWeight, FloatFormat};
pub use grouped::{CodeMap, Codes, GroupedWeight, Groups, Rounding, Scales, WeightError};
pub use op::{Forward, HostOp, HostView};
pub use weight::{PackedWeight, Tile, WeightInfo};
