//! BOFT as one of the families of adapters.

use qoft_core::{AdapterParam, LayerKind, OftAdapter, Random, Result};
use qoft_peft::{AdapterConfig, Family, FamilyRegistration, Site};

use crate::butterfly::Butterfly;
use crate::config::BoftConfig;
use crate::rotation::BoftRotation;

/// The registration of the family.
pub static REGISTRATION: FamilyRegistration = FamilyRegistration::new(&Family::<BoftConfig>::NEW);

qoft_peft::register_family!(REGISTRATION);

impl AdapterConfig for BoftConfig {
    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        match kind {
            LayerKind::Linear | LayerKind::Conv2d => &[BoftRotation::BLOCKS, BoftRotation::SCALES],
            _ => &[],
        }
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        let Butterfly {
            factors,
            blocks,
            size,
        } = butterfly(self, site)?;
        let scales = match site.kind {
            LayerKind::Conv2d => vec![1, site.out_features],
            _ => vec![site.out_features, 1],
        };
        Ok(vec![vec![factors, blocks, size, size], scales])
    }

    /// PEFT's start: the identity, or normal values with a standard deviation of 0.1 about it.
    fn initial_values(
        &self,
        _: &Site,
        name: &str,
        shape: &[usize],
        mut random: Random,
    ) -> Vec<f32> {
        let count = shape.iter().product();
        let mean = match name {
            BoftRotation::SCALES => 1.0,
            _ => 0.0,
        };
        let value = |_| match self.init_weights {
            true => mean as f32,
            false => (mean + 0.1 * random.normal()) as f32,
        };
        (0..count).map(value).collect()
    }

    fn rotation(
        &self,
        site: &Site,
        strength: f64,
        params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>> {
        let butterfly = butterfly(self, site)?;
        let [blocks, scales] = params.try_into().expect("two parameters, as told");
        let rotation = BoftRotation::new(butterfly, blocks, scales)
            .with_dropout(self.boft_dropout)
            .with_strength(strength);
        Ok(Box::new(rotation))
    }
}

/// The butterfly of a layer.
///
/// Where PEFT cannot build its CUDA extension, it trains one factor, whatever the configuration says,
/// and saves that configuration: so a file with one factor has one.
fn butterfly(config: &BoftConfig, site: &Site) -> Result<Butterfly> {
    let factors = match site.saved_shape(BoftRotation::BLOCKS) {
        Some([1, ..]) => 1,
        _ => config.boft_n_butterfly_factor,
    };
    Butterfly::new(config, factors, site)
}
