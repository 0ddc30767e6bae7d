//! HRA as one of the families of adapters.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;
use qoft_core::{Error, LayerKind, OftAdapter, Result};
use qoft_peft::{AdapterConfig, AdapterFamily, Site, TargetRules};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::config::HraConfig;
use crate::rotation::HraRotation;

/// PEFT's `HRA`.
pub struct Hra;

qoft_peft::register_family!(Hra);

impl AdapterFamily for Hra {
    fn peft_type(&self) -> &'static str {
        "HRA"
    }

    fn defaults(&self) -> Value {
        HraConfig::default().to_json()
    }

    fn read(&self, config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>> {
        Ok(Arc::new(HraConfig::from_json(config, file)?))
    }
}

impl AdapterConfig for HraConfig {
    fn peft_type(&self) -> &'static str {
        Hra.peft_type()
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
            LayerKind::Linear | LayerKind::Conv2d => &[HraRotation::PARAM],
            LayerKind::Embedding | LayerKind::Norm => &[],
        }
    }

    fn param_shapes(&self, in_features: usize) -> Vec<[usize; 2]> {
        vec![[in_features, self.r]]
    }

    /// PEFT's start: Kaiming's uniform values, each column twice so that the reflections cancel.
    /// An odd number of them cannot, and columns that are to be orthogonal must differ.
    fn initial_values(&self, in_features: usize, seed: u64) -> Vec<Vec<f32>> {
        let pairs = self.init_weights && self.r.is_multiple_of(2) && !self.apply_gs;
        let copies = if pairs { 2 } else { 1 };
        let columns = self.r / copies;
        let bound = 1.0 / (columns as f32).sqrt();
        let mut random = StdRng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(in_features * self.r);
        for _ in 0..in_features * columns {
            let value = random.random_range(-bound..bound);
            values.extend(std::iter::repeat_n(value, copies));
        }
        vec![values]
    }

    fn rotation(&self, site: Site, params: Vec<Param<Tensor<2>>>) -> Result<Box<dyn OftAdapter>> {
        if site.strength != 1.0 {
            let strength = site.strength;
            let reason = format!(
                "expected 1, found {strength}: reflections are all or nothing, and PEFT has no \
                 scale for HRA either"
            );
            return Err(Error::config("adapter of HRA", "strength", reason));
        }
        let [param] = params.try_into().expect("one parameter, as told");
        Ok(Box::new(HraRotation::new(param, self.apply_gs)))
    }
}
