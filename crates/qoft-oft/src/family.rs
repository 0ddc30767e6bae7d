//! OFT as one of the families of adapters.

use std::sync::Arc;

use serde_json::Value;

use super::config::OftConfig;
use super::rotation::{OftRotation, RotationSettings, random_values};
use qoft_core::{AdapterParam, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, AdapterFamily, CommonConfig, FamilyRegistration, Site};

/// PEFT's `OFT`.
pub struct Oft;

/// The registration of [`Oft`].
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Oft);

qoft_peft::register_family!(REGISTRATION);

impl AdapterFamily for Oft {
    fn peft_type(&self) -> &'static str {
        "OFT"
    }

    fn defaults(&self) -> Value {
        OftConfig::default().to_json()
    }

    fn read(&self, config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>> {
        Ok(Arc::new(OftConfig::from_json(config, file)?))
    }
}

impl AdapterConfig for OftConfig {
    fn family(&self) -> &'static dyn AdapterFamily {
        &Oft
    }

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn validate(&self, file: &str) -> Result<()> {
        self.check(file)
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a plain struct")
    }

    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        match kind {
            LayerKind::Embedding => &[OftRotation::EMBEDDING_PARAM],
            LayerKind::Linear | LayerKind::Conv2d => &[OftRotation::PARAM],
            _ => &[],
        }
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        let settings = RotationSettings::new(self, site.in_features);
        Ok(vec![settings.shape().to_vec()])
    }

    fn initial_values(&self, _: &Site, _: &str, shape: &[usize], random: Random) -> Vec<f32> {
        let count = shape.iter().product();
        match self.init_weights {
            true => vec![0.0; count],
            false => random_values(count, random),
        }
    }

    fn rotation(
        &self,
        site: &Site,
        strength: f64,
        params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>> {
        let settings = RotationSettings {
            strength,
            ..RotationSettings::new(self, site.in_features)
        };
        let [param] = params.try_into().expect("one parameter, as told");
        Ok(Box::new(OftRotation::with_param(settings, param)))
    }

    fn adjustment(&self, site: &Site) -> Option<String> {
        let size = RotationSettings::new(self, site.in_features).size;
        let blocks = site.in_features / size;
        if self.r == 0 && size != self.oft_block_size {
            let from = self.oft_block_size;
            Some(format!("oft_block_size {from} adjusted to {size}"))
        } else if self.r != 0 && blocks != self.r {
            Some(format!("r {} adjusted to {blocks}", self.r))
        } else {
            None
        }
    }
}
