//! What one of PEFT's methods has to be, to work with our layers.

use std::fmt::Debug;
use std::sync::Arc;

use qoft_core::{AdapterParam, LayerKind, OftAdapter, Random, Result};
use serde_json::Value;

use crate::common::CommonConfig;
use crate::site::Site;

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

/// A configuration as its file has it. [`FamilyKeys`](crate::FamilyKeys) brings it along.
pub trait ConfigFile {
    /// The family whose configuration it is.
    fn family(&self) -> &'static dyn AdapterFamily;

    /// The keys that all families share.
    fn common(&self) -> &CommonConfig;

    /// Checks the values; `file` is named in errors.
    ///
    /// # Errors
    /// If a value is impossible or asks for something that is not supported.
    fn validate(&self, file: &str) -> Result<()>;

    /// All keys, those that are not known here among them.
    fn to_json(&self) -> Value;
}

/// The configuration of an adapter: which layers it is for, and what it has for each.
pub trait AdapterConfig: ConfigFile + Debug + Send + Sync {
    /// PEFT's name of the family, in capitals.
    fn peft_type(&self) -> &'static str {
        self.family().peft_type()
    }

    /// Names of the parameters below a layer of this kind, as files have them; none if the family
    /// is not for such layers.
    fn param_names(&self, kind: LayerKind) -> &'static [&'static str];

    /// Shapes of these parameters, in the order of their names. A file whose parameters have others
    /// is refused, so sizes that a file may decide are taken from [`Site::saved_shape`].
    ///
    /// # Errors
    /// If the sizes of the layer do not fit the configuration; the error names the key.
    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>>;

    /// Values to start from for the parameter of this name and shape. All that is random comes from
    /// `random`.
    fn initial_values(&self, site: &Site, name: &str, shape: &[usize], random: Random) -> Vec<f32>;

    /// The rotation that has these parameters, in the order of their names, with a strength: 1 for
    /// the rotation as it was trained, 0 for none.
    ///
    /// # Errors
    /// If the family cannot do what is asked for, such as a strength other than 1.
    fn rotation(
        &self,
        site: &Site,
        strength: f64,
        params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>>;

    /// What differs from the configuration in this layer, in words, if anything has to.
    fn adjustment(&self, _site: &Site) -> Option<String> {
        None
    }
}
