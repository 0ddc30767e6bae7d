//! `adapter_config.json` of HRA, with PEFT's keys and defaults.

use std::path::Path;

use qoft_core::oft::{Layers, OneOrMany, TargetRules};
use qoft_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// PEFT's `HRAConfig`. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HraConfig {
    /// Always `HRA`.
    pub peft_type: String,
    /// True in saved adapters.
    pub inference_mode: bool,
    /// Number of reflections.
    pub r: usize,
    /// Make the vectors orthogonal to each other.
    #[serde(rename = "apply_GS")]
    pub apply_gs: bool,
    /// Layers to adapt: names, a regular expression, or `all-linear`.
    pub target_modules: Option<OneOrMany>,
    /// Layers to leave alone: names, or a regular expression.
    pub exclude_modules: Option<OneOrMany>,
    /// True: start from pairs of equal reflections, which cancel. False: from random ones.
    pub init_weights: bool,
    /// Indices of the blocks to adapt; all if absent.
    pub layers_to_transform: Option<Layers>,
    /// Names under which blocks are numbered.
    pub layers_pattern: Option<OneOrMany>,
    /// Which biases train: `none`, `all` or `hra_only`.
    pub bias: String,
    /// Modules that train whole.
    pub modules_to_save: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for HraConfig {
    fn default() -> Self {
        Self {
            peft_type: "HRA".into(),
            inference_mode: false,
            r: 8,
            apply_gs: false,
            target_modules: None,
            exclude_modules: None,
            init_weights: true,
            layers_to_transform: None,
            layers_pattern: None,
            bias: "none".into(),
            modules_to_save: None,
            other: Map::new(),
        }
    }
}

impl HraConfig {
    /// Reads and validates `adapter_config.json`.
    ///
    /// # Errors
    /// If the file is no valid HRA configuration.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let config: Self = serde_json::from_str(&text)
            .map_err(|e| Error::file(path, format!("not an HRA configuration: {e}")))?;
        config.validate(&path.display().to_string())?;
        Ok(config)
    }

    /// Checks the values; `file` is named in errors.
    ///
    /// # Errors
    /// If a value is impossible or asks for something that is not implemented.
    pub fn validate(&self, file: &str) -> Result<()> {
        let fail = |key: &str, reason: String| Err(Error::config(file, key, reason));
        if self.peft_type != "HRA" {
            let reason = format!("expected HRA, found {}", self.peft_type);
            return fail("peft_type", reason);
        }
        if self.r == 0 {
            return fail("r", "must be at least 1".into());
        }
        if self.bias != "none" {
            let reason = format!("`{}`: training biases is not implemented", self.bias);
            return fail("bias", reason);
        }
        if self.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()) {
            let reason = "training whole modules is not implemented";
            return fail("modules_to_save", reason.into());
        }
        Ok(())
    }

    pub(crate) fn rules(&self) -> TargetRules<'_> {
        TargetRules {
            target_modules: self.target_modules.as_ref(),
            exclude_modules: self.exclude_modules.as_ref(),
            layers_to_transform: self.layers_to_transform.as_ref(),
            layers_pattern: self.layers_pattern.as_ref(),
        }
    }
}
