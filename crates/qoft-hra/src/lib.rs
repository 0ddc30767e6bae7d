//! HRA: adapters that are products of Householder reflections, as in PEFT.
//!
//! A second family of rotations beside OFT: [`HraRotation`] implements
//! [`OftAdapter`](qoft_core::OftAdapter), so layers, training loops, merging and the functions of
//! [`qoft_core::adapters`] take it as it is. [`attach`], [`load`] and [`save`] are for PEFT's
//! folders.
//!
//! ```
//! use burn::tensor::Device;
//! use qoft_core::{Linear, oft::OneOrMany, walkable};
//! use qoft_hra::HraConfig;
//!
//! struct Model {
//!     proj: Linear,
//! }
//!
//! walkable!(Model { proj });
//!
//! # fn main() -> qoft_core::Result<()> {
//! let device = Device::flex();
//! let proj = Linear::from(&burn::nn::LinearConfig::new(8, 4).init(&device));
//! let mut model = Model { proj };
//! let config = HraConfig {
//!     target_modules: Some(OneOrMany::One("all-linear".into())),
//!     r: 2,
//!     ..HraConfig::default()
//! };
//! assert_eq!(qoft_hra::attach(&mut model, &config, "", "", "default", &device)?, 1);
//! # Ok(())
//! # }
//! ```

mod config;
mod folder;
mod rotation;

pub use config::HraConfig;
pub use folder::{attach, load, save};
pub use rotation::HraRotation;
