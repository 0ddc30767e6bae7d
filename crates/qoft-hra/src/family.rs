//! HRA as one of the families of adapters.

use std::sync::Arc;

use qoft_core::{AdapterParam, Error, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, AdapterFamily, CommonConfig, FamilyRegistration, Site};
use serde_json::Value;

use crate::config::HraConfig;
use crate::rotation::HraRotation;

/// PEFT's `HRA`.
pub struct Hra;

/// The registration of [`Hra`].
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Hra);

qoft_peft::register_family!(REGISTRATION);

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
    fn family(&self) -> &'static dyn AdapterFamily {
        &Hra
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
            LayerKind::Linear | LayerKind::Conv2d => &[HraRotation::PARAM],
            _ => &[],
        }
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        Ok(vec![vec![site.in_features, self.r]])
    }

    /// PEFT's start: Kaiming's uniform values, each column twice so that the reflections cancel.
    /// An odd number of them cannot, and columns that are to be orthogonal must differ.
    fn initial_values(
        &self,
        site: &Site,
        _: &str,
        shape: &[usize],
        mut random: Random,
    ) -> Vec<f32> {
        let pairs = self.init_weights && self.r.is_multiple_of(2) && !self.apply_gs;
        let copies = if pairs { 2 } else { 1 };
        let columns = self.r / copies;
        let bound = 1.0 / (columns as f64).sqrt();
        let mut values = Vec::with_capacity(shape.iter().product());
        for _ in 0..site.in_features * columns {
            let value = random.between(-bound, bound) as f32;
            values.extend(std::iter::repeat_n(value, copies));
        }
        values
    }

    fn rotation(
        &self,
        _: &Site,
        strength: f64,
        params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>> {
        if strength != 1.0 {
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
