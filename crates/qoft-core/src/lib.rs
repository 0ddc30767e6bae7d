//! The core of qoft: what a quantization scheme, a rotation and a model have to be.
//!
//! - [`QuantBackend`]: a scheme. It claims layers of a [`Checkpoint`] and loads them as
//!   [`PackedWeight`]s. Backends enter the [`Registry`] through [`register_backend!`].
//! - [`OftAdapter`]: a trainable rotation of a layer's input; [`OftRotation`] is PEFT's.
//! - [`peft`]: adapters as PEFT has them. Families of adapters enter through [`register_family!`].
//! - [`Layer`]: a frozen weight with [`Adapters`]: [`Linear`], [`Conv2d`], [`Embedding`], [`Norm`].
//!   [`Walk`] finds all of them in a model, and [`adapters`] chooses which of their adapters compute.
//! - [`ops`]: every operation as part of Burn's autodiff graph.
//!
//! No quantization format is known here.

mod adapter;
pub mod adapters;
mod backend;
mod checkpoint;
mod cholesky;
mod compensate;
mod conv2d;
mod dense;
mod device;
mod embedding;
mod error;
mod from_burn;
mod frozen;
mod hessian;
mod integer_grid;
mod layer;
mod linear;
mod norm;
pub mod oft;
pub mod ops;
mod output;
pub mod peft;
mod registry;
mod requantize;
mod scratch;
mod walk;

pub use adapter::{NamedParam, OftAdapter, param_id, parameter};
pub use adapters::{AdapterSlot, Adapters};
pub use backend::{
    BackendOptions, Capabilities, LayerSource, LoadOptions, LoadedLinear, Purpose, QuantBackend,
};
pub use checkpoint::{Checkpoint, TensorView, WaitingFile, dtype_name, float_dtype, float_format};
pub use compensate::{CompensateError, CompensateOptions, Compensated};
pub use conv2d::{Conv2d, Conv2dOptions};
pub use dense::{Dense, dense_weight};
pub use device::{DEVICE_VARIABLE, DEVICES, default_device, device};
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use hessian::Hessian;
pub use integer_grid::IntegerGrid;
pub use layer::{InputObserver, Layer, LayerKind};
pub use linear::Linear;
pub use norm::Norm;
pub use oft::{OftConfig, OftRotation};
pub use output::{StagedDir, write_file};
#[doc(hidden)]
pub use registry::registry_entry;
pub use registry::{Registration, Registry};
pub use requantize::{CodeSearch, Grid, Nearest, NewTensor, RequantizeOptions};
pub use scratch::ScratchDir;
#[doc(hidden)]
pub use walk::join as walk_join;
pub use walk::{Walk, trainable_parameters};

pub use inventory;
pub use qoft_kernels as kernels;
pub use qoft_kernels::{Matrix, PackedWeight, WeightInfo};
pub use safetensors::Dtype;
