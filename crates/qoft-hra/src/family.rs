//! HRA as one of the families of adapters.

use qoft_core::{AdapterParam, Error, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, Family, FamilyRegistration, Site};

use crate::config::HraConfig;
use crate::rotation::HraRotation;

/// The registration of the family.
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Family::<HraConfig>::NEW);

qoft_peft::register_family!(REGISTRATION);

impl AdapterConfig for HraConfig {
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
            return Err(Error::config("adapter of HRA").key("strength", reason));
        }
        let [param] = params.try_into().expect("one parameter, as told");
        Ok(Box::new(HraRotation::new(param, self.apply_gs)))
    }
}
