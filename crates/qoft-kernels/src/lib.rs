//! Packed weights, tile decoders and CPU kernels.
//!
//! This crate knows neither Burn nor any checkpoint format. A quantized weight is a
//! [`PackedWeight`]: something that decodes tiles of itself. [`GroupedWeight`] covers the
//! common layouts (codes, a map, scales and zero points by group), [`CodebookWeight`] additive
//! codebooks, [`DenseWeight`] plain matrices.
//!
//! Everything that computes is a [`HostOp`]: an operation on `f32` slices with a handwritten
//! backward. One bridge makes all of them operations of an autodiff framework.

mod blocks;
mod blockwise;
mod codebook;
mod codes;
mod compute_dtype;
mod computed;
#[cfg(feature = "cubecl")]
pub mod cube;
mod decode;
mod dense;
mod device;
mod error;
mod floats;
mod fp4;
mod fp8;
pub mod gemm;
mod grouped;
mod groups;
mod matrix;
mod nibble_order;
mod op;
pub mod ops;
mod pieces;
mod ranks;
mod row;
mod scratch;
pub mod simd;
mod team;
mod transpose;
mod vector;
mod weight;

pub use blocks::{block_exponents, block_ranges, equal_blocks};
pub use blockwise::{BlockFormat, BlockWeight};
pub use codebook::{CodebookShape, CodebookWeight};
pub use codes::{CodeMap, Codes, integer_name};
pub use compute_dtype::ComputeDtype;
pub use computed::computed_in;
pub use decode::simd_level;
pub use dense::{DenseView, DenseWeight};
pub use device::{
    CodebookLayout, DeviceLayout, DeviceWeight, GroupLayout, GroupedLayout, MapLayout, RUN,
    ZeroLayout,
};
pub use error::WeightError;
pub use floats::{FloatFormat, Floats, whole};
pub use fp4::{FP4, code_pairs, fp4_code};
pub use fp8::{Fp8Format, power_above, power_code, powers_of_two};
pub use grouped::{GroupedBuilder, GroupedWeight};
pub use groups::{Groups, Scales, Zeros};
pub use matrix::Matrix;
pub use nibble_order::NibbleOrder;
pub use op::{Forward, HostOp, HostView};
pub use ranks::count_less;
pub use row::InputRow;
pub use transpose::transpose;
pub use weight::{PackedWeight, Tile, WeightInfo, check_finite};
