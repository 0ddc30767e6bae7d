//! GOFT as a family of adapters for qoft: products of Givens rotations.
//!
//! A rotation of `d` features is a product of `d − 1` rotations of two features each, so a layer has `d − 1`
//! parameters, its angles. The method is of Ma, Chu, Yang, Lin, Gao and Zhao, "Parameter Efficient
//! Quasi-Orthogonal Fine-Tuning via Givens Rotation", ICML 2024, <https://arxiv.org/abs/2404.04316>.
//!
//! PEFT has no such method. The folders have PEFT's form, with a `peft_type` of their own.

mod config;
mod rotation;

use std::sync::Arc;

use qoft_core::Result;
use qoft_peft::{AdapterConfig, AdapterFamily, FamilyRegistration, register_family};
use serde_json::Value;

pub use config::GoftConfig;
pub use rotation::GivensRotation;

/// GOFT.
pub struct Goft;

/// The registration of [`Goft`].
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Goft);

register_family!(REGISTRATION);

impl AdapterFamily for Goft {
    fn peft_type(&self) -> &'static str {
        "GOFT"
    }

    fn defaults(&self) -> Value {
        GoftConfig::default().to_json()
    }

    fn read(&self, config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>> {
        Ok(Arc::new(GoftConfig::from_json(config, file)?))
    }
}
