//! GOFT as a family of adapters for qoft: products of Givens rotations.
//!
//! A rotation of `d` features is a product of `d − 1` rotations of two features each, so a layer has `d − 1`
//! parameters, its angles. The method is of Ma, Chu, Yang, Lin, Gao and Zhao, "Parameter Efficient
//! Quasi-Orthogonal Fine-Tuning via Givens Rotation", ICML 2024, <https://arxiv.org/abs/2404.04316>.
//!
//! PEFT has no such method. The folders have PEFT's form, with a `peft_type` of their own.

mod config;
mod rotation;

use qoft_peft::{Family, FamilyRegistration, register_family};

pub use config::GoftConfig;
pub use rotation::GivensRotation;

/// The registration of the family.
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Family::<GoftConfig>::NEW);

register_family!(REGISTRATION);
