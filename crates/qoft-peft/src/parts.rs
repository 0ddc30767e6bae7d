//! What a configuration means for a layer: a rotation, a bias, or the whole module.

use fancy_regex::Regex;

use crate::family::AdapterConfig;
use crate::targets::{Targets, regex};
use qoft_core::{BIAS, LayerTensor};
use qoft_core::{Error, Result};
use qoft_core::{Layer, LayerKind};

/// The compiled choice of what trains.
#[derive(Debug)]
pub struct Parts<'a> {
    targets: Targets,
    bias: Biases,
    whole: &'a [String],
    /// No layer inside one of these modules gets a rotation.
    not_rotated: Vec<Regex>,
}

#[derive(Debug, PartialEq)]
enum Biases {
    None,
    All,
    OfTargets,
}

impl<'a> Parts<'a> {
    /// Compiles what a configuration says, with PEFT's default targets for `model_type`.
    ///
    /// # Errors
    /// If an expression is invalid, options contradict each other, or there is no default.
    pub fn new(config: &'a dyn AdapterConfig, model_type: &str) -> Result<Self> {
        let whole = config.modules_to_save();
        // As PEFT has it: names are expressions for one or more components of a path.
        let not_rotated = whole.iter().map(|name| {
            let pattern = format!(r"^(?:.*\.)?(?:{name})(?:\..*)?$");
            regex(&pattern, "modules_to_save")
        });
        Ok(Self {
            targets: Targets::new(&config.targets(), model_type)?,
            bias: match config.bias() {
                "none" => Biases::None,
                "all" => Biases::All,
                _ => Biases::OfTargets,
            },
            whole,
            not_rotated: not_rotated.collect::<Result<_>>()?,
        })
    }

    /// Whether the layer gets a rotation; `is_head` says that it is the output head.
    pub fn rotates(&self, path: &str, kind: LayerKind, is_head: bool) -> bool {
        let saved = |regex: &Regex| regex.is_match(path).unwrap_or(false);
        self.targets.matches(path, kind, is_head) && !self.not_rotated.iter().any(saved)
    }

    /// Whether the layer trains whole, by itself or as part of a larger module. As in PEFT a name
    /// means all modules whose paths end with it.
    pub fn is_whole(&self, path: &str) -> bool {
        self.whole.iter().any(|name| is_part_of(path, name))
    }

    /// The tensors that the adapter has for the layer at `path` instead of the layer's.
    ///
    /// # Errors
    /// If one of them is quantized.
    pub fn own(&self, path: &str, layer: &dyn Layer, rotated: bool) -> Result<Vec<LayerTensor>> {
        let tensors = layer.tensors();
        if !self.is_whole(path) {
            let trains = self.trains_bias(rotated);
            let biases = tensors.into_iter().filter(|t| trains && t.name == BIAS);
            return Ok(biases.collect());
        }
        match tensors.iter().find(|tensor| !tensor.dense) {
            None => Ok(tensors),
            Some(tensor) => Err(quantized(&format!("{path}.{}", tensor.name))),
        }
    }

    /// Whether the bias of a layer trains that does not train whole.
    pub fn trains_bias(&self, rotated: bool) -> bool {
        match self.bias {
            Biases::None => false,
            Biases::All => true,
            Biases::OfTargets => rotated,
        }
    }
}

/// The error about a tensor of a module that is to be trained whole.
pub fn quantized(tensor: &str) -> Error {
    let reason = format!(
        "`{tensor}` is quantized, so it cannot be trained whole; let the layer have a rotation \
         (target_modules), or dequantize the model before"
    );
    Error::config("adapter configuration", "modules_to_save", reason)
}

/// Whether the layer at `path` is a module whose path ends with `name`, or inside one.
pub(super) fn is_part_of(path: &str, name: &str) -> bool {
    let dots = path.match_indices('.').map(|(at, _)| &path[..at]);
    let mut modules = dots.chain([path]);
    modules.any(|module| module.ends_with(name))
}
