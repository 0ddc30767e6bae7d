//! BOFT: adapters that are butterflies of orthogonal blocks, and scales of the output, as in PEFT.
//!
//! [`BoftRotation`] is the mathematics, and [`BoftConfig`] tells of it to the functions of [`qoft_peft`] and
//! to every program that links this crate (`use qoft_boft as _;`).
//!
//! ```
//! use burn::tensor::Device;
//! use qoft_boft::BoftConfig;
//! use qoft_core::{Linear, Walk};
//! use qoft_peft::{self as peft, CommonConfig, ModelFacts};
//!
//! #[derive(Walk)]
//! struct Model {
//!     proj: Linear,
//! }
//!
//! # fn main() -> qoft_core::Result<()> {
//! let device = Device::flex();
//! let proj = Linear::from(&burn::nn::LinearConfig::new(16, 4).init(&device));
//! let mut model = Model { proj };
//! let mut config = BoftConfig::default();
//! config.boft_block_size = 4;
//! config.boft_n_butterfly_factor = 2;
//! config.common = CommonConfig::targeting("all-linear");
//! let facts = ModelFacts::default();
//! assert_eq!(peft::attach(&mut model, &config, facts, "default", 1, &device)?, 1);
//! # Ok(())
//! # }
//! ```

mod butterfly;
mod config;
mod family;
mod rotation;

pub use butterfly::Butterfly;
pub use config::BoftConfig;
pub use family::REGISTRATION;
pub use rotation::BoftRotation;
