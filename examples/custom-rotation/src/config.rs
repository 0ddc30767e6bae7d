//! `adapter_config.json`, and what it means for a layer.

use qoft_core::{AdapterParam, Error, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, CommonConfig, FamilyKeys, Site};
use serde::{Deserialize, Serialize};

use crate::rotation::GivensRotation;

/// The keys of a GOFT adapter. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoftConfig {
    /// True: start from the identity. False: from random angles.
    pub init_weights: bool,
    /// The keys that all families share.
    #[serde(flatten)]
    pub common: CommonConfig,
}

impl Default for GoftConfig {
    fn default() -> Self {
        Self {
            init_weights: true,
            common: CommonConfig::default(),
        }
    }
}

impl FamilyKeys for GoftConfig {
    const PEFT_TYPE: &'static str = "GOFT";

    fn common_keys(&self) -> &CommonConfig {
        &self.common
    }

    /// Nothing that a key could say is impossible.
    fn check(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl AdapterConfig for GoftConfig {
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
                Err(Error::config("adapter").key("target_modules", reason))
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
