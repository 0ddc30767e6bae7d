//! The keys of a configuration that choose layers.

use qoft_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::modules::Modules;

/// What a configuration says about the layers that it is for; the keys are the same in all
/// families of adapters.
#[derive(Debug, Clone, Copy)]
pub struct TargetRules<'a> {
    /// Layers to adapt; by default those that PEFT chooses for the model.
    pub target_modules: Option<&'a OneOrMany>,
    /// Layers to leave alone.
    pub exclude_modules: Option<&'a OneOrMany>,
    /// Indices of the blocks to adapt.
    pub layers_to_transform: Option<&'a Layers>,
    /// Names under which blocks are numbered.
    pub layers_pattern: Option<&'a OneOrMany>,
}

impl TargetRules<'_> {
    /// Fails if blocks are chosen beside an expression, in families where PEFT refuses that; `file`
    /// is named in errors.
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
                return Err(Error::config(file, key, reason));
            }
        }
        Ok(())
    }

    /// The error for a model of which no module is meant.
    pub(crate) fn match_nothing(&self, modules: &Modules) -> Error {
        let target = match self.target_modules {
            None => "(default)".to_owned(),
            Some(OneOrMany::One(one)) => format!("`{one}`"),
            Some(OneOrMany::Many(many)) => format!("{many:?}"),
        };
        Error::NoTarget {
            target,
            known: modules.known(),
        }
    }
}

/// A string, or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
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

/// An index, or a list of indices. Indices below 0 are possible, but no block has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
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
