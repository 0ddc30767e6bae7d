//! What one of PEFT's methods has to be, to work with our layers.

use std::fmt::Debug;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;
use serde_json::Value;

use crate::rules::TargetRules;
use qoft_core::LayerKind;
use qoft_core::OftAdapter;
use qoft_core::{Error, Result};

/// A family of adapters: one `peft_type`.
pub trait AdapterFamily: Send + Sync {
    /// PEFT's name of it, in capitals.
    fn peft_type(&self) -> &'static str;

    /// The keys of a new configuration with their defaults.
    fn defaults(&self) -> Value;

    /// Reads and checks a configuration; `file` is named in errors.
    ///
    /// # Errors
    /// If it is none, or asks for something that is impossible or not supported.
    fn read(&self, config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>>;
}

/// The configuration of an adapter: which layers it is for, and what it has for each.
pub trait AdapterConfig: Debug + Send + Sync {
    /// PEFT's name of the family, in capitals.
    fn peft_type(&self) -> &'static str;

    /// The layers that get a rotation.
    fn targets(&self) -> TargetRules<'_>;

    /// Which biases train: `none`, `all`, or those of the targeted layers, for which the word is
    /// the family's name with `_only` behind it.
    fn bias(&self) -> &str;

    /// The modules that train whole.
    fn modules_to_save(&self) -> &[String];

    /// The configuration as the file has it, keys that are not known here among them.
    fn to_json(&self) -> Value;

    /// Names of the parameters below a layer of this kind, as files have them; none if the family
    /// is not for such layers.
    fn param_names(&self, kind: LayerKind) -> &'static [&'static str];

    /// Shapes of these parameters.
    fn param_shapes(&self, in_features: usize) -> Vec<[usize; 2]>;

    /// Values to start from, for each of these parameters.
    fn initial_values(&self, in_features: usize, seed: u64) -> Vec<Vec<f32>>;

    /// The rotation that has these parameters.
    ///
    /// # Errors
    /// If the family cannot do what the site asks for, such as a strength other than 1.
    fn rotation(&self, site: Site, params: Vec<Param<Tensor<2>>>) -> Result<Box<dyn OftAdapter>>;

    /// What differs from the configuration in layers of so many input features, in words, if
    /// anything has to.
    fn adjustment(&self, _in_features: usize) -> Option<String> {
        None
    }
}

/// A place for a rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    /// The kind of the layer.
    pub kind: LayerKind,
    /// Features that the rotation turns.
    pub in_features: usize,
    /// 1 for the rotation as it was trained, 0 for none.
    pub strength: f64,
}

/// Checks the keys that have the same meaning in all families; `file` is named in errors.
///
/// # Errors
/// If `peft_type` is another one, or `bias` is none of PEFT's words.
pub fn check_common(config: &dyn AdapterConfig, found: &str, file: &str) -> Result<()> {
    let family = config.peft_type();
    if found != family {
        let reason = format!("expected {family}, found {found}");
        return Err(Error::config(file, "peft_type", reason));
    }
    let bias = config.bias();
    // PEFT looks at the end of the word, whatever the family.
    if bias != "none" && bias != "all" && !bias.ends_with("_only") {
        let only = format!("{}_only", family.to_lowercase());
        let reason = format!("expected none, all or {only}, found `{bias}`");
        return Err(Error::config(file, "bias", reason));
    }
    Ok(())
}
