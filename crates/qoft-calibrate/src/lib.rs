//! Codes of quantized weights, chosen by what a layer's inputs look like.
//!
//! A [`Hessian`] sums up the inputs of a layer. [`Compensated`] is a
//! [`CodeSearch`](qoft_scheme::CodeSearch) that lets later columns make up for the rounding of
//! earlier ones, as GPTQ does.

mod cholesky;
mod compensate;
mod hessian;

pub use compensate::{CompensateError, CompensateOptions, Compensated};
pub use hessian::{Hessian, Kept};
