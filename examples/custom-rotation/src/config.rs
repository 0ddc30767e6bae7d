//! `adapter_config.json`, and what it means for a layer.

use qoft_core::{AdapterParam, Error, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, AdapterFamily, CommonConfig, Site};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Goft;
use crate::rotation::GivensRotation;

/// The keys of a GOFT adapter. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoftConfig {
    /// Always `GOFT`.
    pub peft_type: String,
    /// True: start from the identity. False: from random angles.
    pub init_weights: bool,
    /// The keys that all families share.
    #[serde(flatten)]
    pub common: CommonConfig,
}

impl Default for GoftConfig {
    fn default() -> Self {
        Self {
            peft_type: "GOFT".into(),
            init_weights: true,
            common: CommonConfig::default(),
        }
    }
}

impl GoftConfig {
    /// Reads a configuration; `file` is named in errors.
    ///
    /// # Errors
    /// If it is no valid GOFT configuration.
    pub fn from_json(json: Value, file: &str) -> Result<Self> {
        let config: Self = serde_json::from_value(json)
            .map_err(|e| Error::file(file, format!("not a GOFT configuration: {e}")))?;
        config.validate(file)?;
        Ok(config)
    }
}

impl AdapterConfig for GoftConfig {
    fn family(&self) -> &'static dyn AdapterFamily {
        &Goft
    }

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn validate(&self, file: &str) -> Result<()> {
        self.common.check(self.peft_type(), &self.peft_type, file)
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a plain struct")
    }

    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        match kind {
            LayerKind::Linear | LayerKind::Conv2d | LayerKind::Embedding => {
                &[GivensRotation::ANGLES]
            }
            _ => &[],
        }
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        match site.in_features {
            0 | 1 => {
                let reason = format!("`{}` has no two features to rotate", site.path);
                Err(Error::config("adapter", "target_modules", reason))
            }
            features => Ok(vec![vec![features - 1]]),
        }
    }

    fn initial_values(&self, _: &Site, _: &str, shape: &[usize], mut random: Random) -> Vec<f32> {
        let angle = |_| match self.init_weights {
            true => 0.0,
            false => (0.1 * random.normal()) as f32,
        };
        (0..shape.iter().product()).map(angle).collect()
    }

    fn rotation(
        &self,
        _: &Site,
        strength: f64,
        params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>> {
        let [angles] = params.try_into().expect("one parameter, as told");
        Ok(Box::new(GivensRotation::new(angles, strength)))
    }
}
