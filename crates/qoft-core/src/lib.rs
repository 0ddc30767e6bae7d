//! The core of qoft: layers with adapters, and everything about schemes.
//!
//! - [`QuantBackend`], [`Checkpoint`] and the [`Registry`] are those of [`qoft_scheme`], which this
//!   crate hands on.
//! - [`OftAdapter`]: a trainable rotation of a layer's input.
//! - [`Layer`]: a frozen weight with [`Adapters`]: [`Linear`], [`Conv2d`], [`CausalConv1d`], [`Embedding`], [`Norm`].
//!   [`Walk`] finds all of them in a model, and [`adapters`] chooses which of their adapters compute.
//! - [`ops`]: every operation as part of Burn's autodiff graph.
//!
//! No quantization format is known here, and no family of rotations.

mod adapter;
pub mod adapters;
mod causal_conv1d;
mod conv2d;
mod device;
mod embedding;
mod from_burn;
mod frozen;
pub mod lanes;
mod layer;
mod linear;
mod merging;
mod norm;
pub mod ops;
mod param;
mod pass;
mod random;
mod still;
pub mod walk;

pub use adapter::{
    AdapterSlot, Adapters, BIAS, Composition, LayerTensor, OftAdapter, OutputSide, OwnTensor,
    WEIGHT,
};
pub use causal_conv1d::CausalConv1d;
pub use conv2d::{Conv2d, Conv2dOptions};
pub use device::{
    DEVICE_VARIABLE, DEVICES, DeviceFacts, OTHER_DEVICES, compute_dtype, default_device, device,
    devices,
};
pub use embedding::Embedding;
pub use frozen::{Frozen, Mergeable, Original, WeightForm};
pub use lanes::{AdapterChoice, Lanes};
pub use layer::{Filter, InputObserver, Layer};
pub use linear::Linear;
pub use norm::Norm;
pub use param::{AdapterParam, ParamPlace};
pub use pass::{Draw, Pass};
pub use random::{Random, stable_hash};
pub use still::{Moves, Still};
pub use walk::{Walk, trainable_parameters};

pub use burn;
pub use qoft_derive::Walk;
pub use qoft_scheme as scheme;
pub use qoft_scheme::*;
