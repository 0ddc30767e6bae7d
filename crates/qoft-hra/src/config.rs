//! `adapter_config.json` of HRA, with PEFT's keys and defaults.

use qoft_core::{Error, Result};
use qoft_peft::{AdapterConfig, Layers, OneOrMany, PEFT_VERSION, check_common};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// PEFT's `HRAConfig`. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HraConfig {
    /// Always `HRA`.
    pub peft_type: String,
    /// The version of PEFT whose formulas the adapter follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peft_version: Option<String>,
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
            peft_version: Some(PEFT_VERSION.to_owned()),
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
    /// The most reflections of a layer: each is a step of its own.
    pub const MAX_REFLECTIONS: usize = 4096;

    /// Reads a configuration; `file` is named in errors.
    ///
    /// # Errors
    /// If it is no valid HRA configuration.
    pub fn from_json(json: Value, file: &str) -> Result<Self> {
        let config: Self = serde_json::from_value(json)
            .map_err(|e| Error::file(file, format!("not an HRA configuration: {e}")))?;
        check_common(&config, &config.peft_type, file)?;
        config.targets().refuse_layers_of_expression(file)?;
        if !(1..=Self::MAX_REFLECTIONS).contains(&config.r) {
            let (r, most) = (config.r, Self::MAX_REFLECTIONS);
            let reason = format!("{r} is not in 1..={most}; 8 reflections are usual");
            return Err(Error::config(file, "r", reason));
        }
        Ok(config)
    }
}
