//! `adapter_config.json` of HRA, with PEFT's keys and defaults.

use qoft_core::{Error, Result};
use qoft_peft::{CommonConfig, FamilyKeys};
use serde::{Deserialize, Serialize};

/// PEFT's `HRAConfig`. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HraConfig {
    /// Number of reflections.
    pub r: usize,
    /// Make the vectors orthogonal to each other.
    #[serde(rename = "apply_GS")]
    pub apply_gs: bool,
    /// True: start from pairs of equal reflections, which cancel. False: from random ones.
    pub init_weights: bool,
    /// The keys that all families share.
    #[serde(flatten)]
    pub common: CommonConfig,
}

impl Default for HraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            apply_gs: false,
            init_weights: true,
            common: CommonConfig::default(),
        }
    }
}

impl HraConfig {
    /// The most reflections of a layer: each is a step of its own.
    pub const MAX_REFLECTIONS: usize = 4096;
}

impl FamilyKeys for HraConfig {
    const PEFT_TYPE: &'static str = "HRA";

    fn common_keys(&self) -> &CommonConfig {
        &self.common
    }

    fn check(&self, file: &str) -> Result<()> {
        let common = &self.common;
        common.refuse_layers_of_expression(file)?;
        if !(1..=Self::MAX_REFLECTIONS).contains(&self.r) {
            let (r, most) = (self.r, Self::MAX_REFLECTIONS);
            let reason = format!("{r} is not in 1..={most}; 8 reflections are usual");
            return Err(Error::config(file).key("r", reason));
        }
        Ok(())
    }
}
