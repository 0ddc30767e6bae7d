//! Orthogonal Fine-Tuning as PEFT has it: configuration and rotation.
//!
//! ```
//! use burn::tensor::Device;
//! use qoft_core::kernels::DenseWeight;
//! use qoft_core::{Linear, LoadedLinear, Walk, adapters};
//! use qoft_oft::OftConfig;
//! use qoft_peft::{self as peft, CommonConfig, ModelFacts};
//!
//! #[derive(Walk)]
//! struct Model {
//!     first: Linear,
//!     second: Linear,
//! }
//!
//! # fn main() -> qoft_core::Result<()> {
//! let device = Device::flex();
//! let linear = || {
//!     let weight = DenseWeight::from_f32(&[0.5; 32], [4, 8]);
//!     Linear::new(LoadedLinear::new(weight), &device)
//! };
//! let mut model = Model { first: linear(), second: linear() };
//! let mut config = OftConfig::default();
//! config.oft_block_size = 4;
//! config.common = CommonConfig::targeting(["first"]);
//! let facts = ModelFacts::default();
//! peft::attach(&mut model, &config, facts, "a", 1, &device)?;
//! peft::attach(&mut model, &config, facts, "b", 1, &device)?;
//! assert_eq!(adapters::active(&model), ["a", "b"]);
//! adapters::activate(&mut model, &["b"])?;
//! assert_eq!(adapters::names(&model), ["a", "b"]);
//! assert_eq!(adapters::active(&model), ["b"]);
//! assert!(adapters::activate(&mut model, &["c"]).is_err());
//! # Ok(())
//! # }
//! ```

mod config;
mod family;
mod inverse;
mod rotation;

pub use config::OftConfig;
pub use family::REGISTRATION;
pub use rotation::{OftRotation, RotationSettings, nearest_divisor};
