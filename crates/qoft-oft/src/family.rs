//! OFT as one of the families of adapters.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;
use serde_json::Value;

use super::config::OftConfig;
use super::rotation::{OftRotation, RotationSettings, random_values};
use qoft_core::LayerKind;
use qoft_core::OftAdapter;
use qoft_core::Result;
use qoft_peft::{AdapterConfig, AdapterFamily, Site, TargetRules};

/// PEFT's `OFT`.
pub struct Oft;

qoft_peft::register_family!(Oft);

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
    fn peft_type(&self) -> &'static str {
        Oft.peft_type()
    }

    fn targets(&self) -> TargetRules<'_> {
        TargetRules {
            target_modules: self.target_modules.as_ref(),
            exclude_modules: self.exclude_modules.as_ref(),
            layers_to_transform: self.layers_to_transform.as_ref(),
            layers_pattern: self.layers_pattern.as_ref(),
        }
    }

    fn bias(&self) -> &str {
        &self.bias
    }

    fn modules_to_save(&self) -> &[String] {
        self.modules_to_save.as_deref().unwrap_or_default()
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a plain struct")
    }

    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        match kind {
            LayerKind::Embedding => &[OftRotation::EMBEDDING_PARAM],
            LayerKind::Linear | LayerKind::Conv2d => &[OftRotation::PARAM],
            LayerKind::Norm => &[],
        }
    }

    fn param_shapes(&self, in_features: usize) -> Vec<[usize; 2]> {
        vec![RotationSettings::new(self, in_features).shape()]
    }

    fn initial_values(&self, in_features: usize, seed: u64) -> Vec<Vec<f32>> {
        let [rows, cols] = RotationSettings::new(self, in_features).shape();
        vec![match self.init_weights {
            true => vec![0.0; rows * cols],
            false => random_values(rows * cols, seed),
        }]
    }

    fn rotation(&self, site: Site, params: Vec<Param<Tensor<2>>>) -> Result<Box<dyn OftAdapter>> {
        let settings = RotationSettings {
            strength: site.strength,
            ..RotationSettings::new(self, site.in_features)
        };
        let [param] = params.try_into().expect("one parameter, as told");
        let rotation = OftRotation::with_param(settings, param).for_kind(site.kind);
        Ok(Box::new(rotation))
    }

    fn adjustment(&self, in_features: usize) -> Option<String> {
        let size = RotationSettings::new(self, in_features).size;
        let blocks = in_features / size;
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
