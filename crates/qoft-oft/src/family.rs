//! OFT as one of the families of adapters.

use super::config::OftConfig;
use super::rotation::{OftRotation, RotationSettings, random_values};
use qoft_core::{AdapterParam, Error, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, Family, FamilyRegistration, Site};

/// The registration of the family.
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Family::<OftConfig>::NEW);

qoft_peft::register_family!(REGISTRATION);

impl AdapterConfig for OftConfig {
    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        match kind {
            LayerKind::Embedding => &[OftRotation::EMBEDDING_PARAM],
            LayerKind::Linear | LayerKind::Conv2d => &[OftRotation::PARAM],
            _ => &[],
        }
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        let settings = RotationSettings::new(self, site.in_features);
        if settings.size < 2 {
            let key = if self.r == 0 { "oft_block_size" } else { "r" };
            let reason = format!(
                "a layer with {} input features gets blocks of 1, which have nothing to rotate; take \
                 larger blocks, or leave the layer out (exclude_modules)",
                site.in_features
            );
            return Err(Error::config("adapter configuration").key(key, reason));
        }
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
