//! HRA: adapters that are products of Householder reflections, as in PEFT.
//!
//! A second family of rotations beside OFT, and an example of one from another crate:
//! [`HraRotation`] is the mathematics, and [`HraConfig`] tells of it to the functions of
//! [`qoft_peft`] and to every program that links this crate (`use qoft_hra as _;`).
//!
//! ```
//! use burn::tensor::Device;
//! use qoft_peft::{self as peft, CommonConfig, ModelFacts};
//! use qoft_core::{Linear, Walk};
//! use qoft_hra::HraConfig;
//!
//! #[derive(Walk)]
//! struct Model {
//!     proj: Linear,
//! }
//!
//! # fn main() -> qoft_core::Result<()> {
//! let device = Device::flex();
//! let proj = Linear::from(&burn::nn::LinearConfig::new(8, 4).init(&device));
//! let mut model = Model { proj };
//! let mut config = HraConfig::default();
//! config.r = 2;
//! config.common = CommonConfig::targeting("all-linear");
//! let facts = ModelFacts::default();
//! assert_eq!(peft::attach(&mut model, &config, facts, "default", 1, &device)?, 1);
//! # Ok(())
//! # }
//! ```

mod config;
mod family;
mod rotation;

pub use config::HraConfig;
pub use family::REGISTRATION;
pub use rotation::HraRotation;
