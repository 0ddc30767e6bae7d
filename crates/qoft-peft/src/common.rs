//! The keys that configurations of all families share.

use qoft_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of PEFT whose formulas and files new adapters follow.
pub const PEFT_VERSION: &str = "0.21.2";

/// The keys of `adapter_config.json` that have the same name and meaning in all of PEFT's methods.
///
/// A family's configuration has them by `#[serde(flatten)]`. Keys that are known nowhere survive
/// reading and writing in [`Self::other`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CommonConfig {
    /// `CAUSAL_LM` for our models.
    pub task_type: Option<String>,
    /// Where the base model came from.
    pub base_model_name_or_path: Option<String>,
    /// Revision of the base model.
    pub revision: Option<String>,
    /// The version of PEFT whose formulas the adapter follows; files of old versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peft_version: Option<String>,
    /// True in saved adapters.
    pub inference_mode: bool,
    /// Layers to adapt: names, a regular expression, or `all-linear`; by default those that PEFT
    /// chooses for the model.
    pub target_modules: Option<OneOrMany>,
    /// Parameters that are no module's weight in PEFT's model: those of all experts of a layer, as PEFT's
    /// LoRA names them. Its OFT has no such key, so it is not written where there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_parameters: Option<Vec<String>>,
    /// Layers to leave alone: names, or a regular expression.
    pub exclude_modules: Option<OneOrMany>,
    /// Indices of the blocks to adapt; all if absent.
    pub layers_to_transform: Option<Layers>,
    /// Names under which blocks are numbered.
    pub layers_pattern: Option<OneOrMany>,
    /// Which biases train: `none`, `all`, or those of the targeted layers, for which the word is
    /// the family's name with `_only` behind it.
    pub bias: String,
    /// Modules that train whole.
    pub modules_to_save: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self {
            task_type: None,
            base_model_name_or_path: None,
            revision: None,
            peft_version: Some(PEFT_VERSION.to_owned()),
            inference_mode: false,
            target_modules: None,
            target_parameters: None,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            bias: "none".to_owned(),
            modules_to_save: None,
            other: Map::new(),
        }
    }
}

impl CommonConfig {
    /// The defaults, for these layers: `"all-linear"`, an expression, or a list of names.
    pub fn targeting(targets: impl Into<OneOrMany>) -> Self {
        Self {
            target_modules: Some(targets.into()),
            ..Self::default()
        }
    }

    /// The parameters that are targeted beside modules.
    pub fn target_parameters(&self) -> &[String] {
        self.target_parameters.as_deref().unwrap_or_default()
    }

    /// The modules that train whole.
    pub fn modules_to_save(&self) -> &[String] {
        self.modules_to_save.as_deref().unwrap_or_default()
    }

    /// Fails if blocks are chosen beside an expression, for families where PEFT refuses that;
    /// `file` is named in errors.
    ///
    /// # Errors
    /// The error names the key.
    pub fn refuse_layers_of_expression(&self, file: &str) -> Result<()> {
        let is_expression = matches!(self.target_modules, Some(OneOrMany::One(_)));
        for (key, given) in [
            ("layers_to_transform", self.layers_to_transform.is_some()),
            ("layers_pattern", self.layers_pattern.is_some()),
        ] {
            if given && is_expression {
                let reason = "cannot be used when target_modules is an expression or a word";
                return Err(Error::config(file).key(key, reason));
            }
        }
        Ok(())
    }
}

/// A string, or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum OneOrMany {
    /// A single string.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl OneOrMany {
    /// Whether it is an empty string or list, which PEFT takes for nothing in some keys.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::One(one) => one.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }
}

impl From<&str> for OneOrMany {
    fn from(one: &str) -> Self {
        Self::One(one.to_owned())
    }
}

impl<const N: usize> From<[&str; N]> for OneOrMany {
    fn from(many: [&str; N]) -> Self {
        Self::Many(many.map(str::to_owned).into())
    }
}

impl From<Vec<String>> for OneOrMany {
    fn from(many: Vec<String>) -> Self {
        Self::Many(many)
    }
}

/// An index, or a list of indices. Indices below 0 are possible, but no block has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Layers {
    /// A single index.
    One(i64),
    /// A list; an empty one means all blocks.
    Many(Vec<i64>),
}

impl Layers {
    /// Whether it is an empty list.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }

    /// Whether the index is among them.
    pub fn contains(&self, index: i64) -> bool {
        match self {
            Self::One(one) => *one == index,
            Self::Many(many) => many.contains(&index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration of a family.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Config {
        size: usize,
        #[serde(flatten)]
        common: CommonConfig,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                size: 4,
                common: CommonConfig::default(),
            }
        }
    }

    #[test]
    fn keys_lie_beside_those_of_the_family_and_unknown_ones_survive() {
        let text =
            r#"{"size": 8, "bias": "all", "layers_to_transform": [1, 2], "future": {"a": [1]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!((config.size, config.common.bias.as_str()), (8, "all"));
        assert_eq!(
            config.common.layers_to_transform,
            Some(Layers::Many(vec![1, 2]))
        );
        assert_eq!(config.common.other.len(), 1);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["future"], serde_json::json!({"a": [1]}));
        assert_eq!(written["size"], 8);
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), config);
    }

    #[test]
    fn only_files_without_a_version_are_old() {
        let old: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(old.common.peft_version, None);
        let new = Config::default().common.peft_version;
        assert_eq!(new.as_deref(), Some(PEFT_VERSION));
    }
}
