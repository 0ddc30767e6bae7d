//! The core of qoft: what a quantization scheme, a rotation and a model have to be.
//!
//! - [`QuantBackend`]: a scheme. It claims layers of a [`Checkpoint`] and loads them as
//!   [`PackedWeight`]s. Backends enter the [`Registry`] through [`register_backend!`].
//! - [`OftAdapter`]: a trainable rotation of a layer's input; [`OftRotation`] is PEFT's.
//! - [`Linear`]: a packed weight with adapters. [`Walk`] finds all of them in a model.
//! - [`ops`]: every operation as part of Burn's autodiff graph.
//!
//! No quantization format is known here.

mod adapter;
mod backend;
mod checkpoint;
mod dense;
mod error;
mod linear;
pub mod oft;
pub mod ops;
mod output;
mod registry;
mod requantize;
mod walk;

pub use adapter::{AdapterSlot, NamedParam, OftAdapter};
pub use backend::{
    BackendOptions, Capabilities, LayerKind, LayerSource, LoadOptions, LoadedLinear, Purpose,
    QuantBackend,
};
pub use checkpoint::{Checkpoint, TensorView, dtype_name};
pub use dense::{Dense, dense_weight};
pub use error::{Error, Result};
pub use linear::Linear;
pub use oft::{OftConfig, OftRotation};
pub use output::{StagedDir, write_file};
#[doc(hidden)]
pub use registry::registry_entry;
pub use registry::{Registration, Registry};
pub use requantize::{CodeSearch, Grid, Nearest, NewTensor, RequantizeOptions};
#[doc(hidden)]
pub use walk::join as walk_join;
pub use walk::{Walk, trainable_parameters};

pub use inventory;
pub use qoft_kernels as kernels;
pub use qoft_kernels::{Matrix, PackedWeight, WeightInfo};
pub use safetensors::Dtype;
