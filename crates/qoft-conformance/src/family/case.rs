//! A configuration on a model.

use std::fmt::{Display, Formatter};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use qoft_core::{Draw, OftAdapter, Result, Walk, adapters};
use qoft_peft::{self as peft, AdapterConfig, Families, FamilyRegistration, ModelFacts, Site};
use serde_json::Value;

use super::model::{Model, off, values};
use crate::compute::{device, random};

pub(super) const ADAPTER: &str = "default";
pub(super) const FACTS: ModelFacts = ModelFacts::NONE;
/// Where in a run training passes are.
pub(super) fn draw() -> Draw {
    Draw::new(3, 2, 0)
}

/// How far `f32` may be off where values are computed in two ways, as a part of their size.
pub(super) const ROUNDING: f32 = 2e-5;

/// What an adapter does before it is trained, and in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Identity,
    Random,
    Dropout,
}

/// A configuration, for the layers of the model that it fits.
pub(super) struct Case {
    pub registration: &'static FamilyRegistration,
    pub start: Start,
    pub config: Arc<dyn AdapterConfig>,
    /// Paths of the layers.
    pub targets: Vec<String>,
    name: String,
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Case {
    pub fn new(registration: &'static FamilyRegistration, start: Start, keys: &Value) -> Self {
        let name = format!("{} {keys}", registration.name());
        let mut json = registration.item().defaults();
        let given = keys.as_object();
        for (key, value) in given.unwrap_or_else(|| panic!("{name}: not an object")) {
            json[key] = value.clone();
        }
        json["target_modules"] = "all-linear".into();
        let read = |json: Value| {
            let config = registration.item().read(json, "configuration");
            config.unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        let config = read(json.clone());
        let model = Model::new();
        let fits = |path: &str| -> Result<bool> {
            let layers = model.layers();
            let found = layers.iter().find(|(known, _)| known == path);
            let site = found.map(|(path, layer)| Site::of(path, *layer));
            let site = site.expect("a layer of the model");
            if config.param_names(site.kind).is_empty() {
                return Ok(false);
            }
            config.param_shapes(&site).map(|_| true)
        };
        let fit = fits(Model::FIRST).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(fit, "{name}: there are no parameters for linear layers");
        let paths = model.layers().into_iter().map(|(path, _)| path);
        let targets: Vec<String> = paths.filter(|path| fits(path).unwrap_or(false)).collect();
        json["target_modules"] = targets.clone().into();
        Self {
            registration,
            start,
            config: read(json),
            targets,
            name,
        }
    }

    /// The family, and OFT.
    pub fn families(&self) -> Families {
        let families = Families::new([&qoft_oft::REGISTRATION]).expect("one family");
        let replacing = self.registration.replacing();
        families.with(&replacing).expect("the family under test")
    }

    /// Puts a new adapter on a model.
    pub fn attach(&self, model: &mut Model, adapter: &str, seed: u64, device: &Device) {
        let count = peft::attach(model, &*self.config, FACTS, adapter, seed, device);
        let count = count.unwrap_or_else(|e| panic!("{self}: {e}"));
        assert_eq!(count, self.targets.len(), "{self}: layers with a rotation");
    }

    /// A model with a new adapter.
    pub fn model(&self, seed: u64, device: &Device) -> Model {
        let mut model = Model::new();
        self.attach(&mut model, ADAPTER, seed, device);
        model
    }

    /// A model with an adapter whose parameters are not those that it starts from.
    pub fn trained(&self, seed: u64, device: &Device) -> Model {
        let mut model = self.model(seed, device);
        train(&mut model, ADAPTER, seed);
        adapters::begin(&mut model, draw());
        model
    }

    pub fn load(&self, model: &mut Model, folder: &Path, adapter: &str) -> Result<()> {
        let loaded = peft::load(model, folder, &self.families(), FACTS, adapter, &device());
        loaded.map(drop)
    }

    /// The rotations of a model with a single adapter, by the paths of their layers.
    pub fn rotations(model: &Model) -> Vec<(String, &dyn OftAdapter)> {
        let layers = model.layers().into_iter();
        let rotations = layers.filter_map(|(path, layer)| {
            let slot = layer.adapters().slots().first()?;
            Some((path, slot.rotation()?))
        });
        rotations.collect()
    }

    /// Fails unless the layers compute the same up to what `f32` rounds.
    pub fn expect_same(&self, found: &Model, expected: &Model, what: &str) {
        self.expect_same_of(found, expected, what, |_| true);
    }

    /// As [`Self::expect_same`], for some of the layers.
    pub fn expect_same_of(
        &self,
        found: &Model,
        expected: &Model,
        what: &str,
        of: impl Fn(&str) -> bool,
    ) {
        let pairs = found.outputs().into_iter().zip(expected.outputs());
        let pairs = pairs.filter(|((path, _), _)| of(path));
        for ((path, found), (_, expected)) in pairs {
            let (found, expected) = (values(found), values(expected));
            let off = off(&found, &expected);
            let size = expected.iter().fold(1.0f32, |most, v| most.max(v.abs()));
            assert!(
                off <= ROUNDING * size,
                "{self}: {what}: `{path}` is off by {off}"
            );
        }
    }

    /// Whether a layer computes something else.
    pub fn differ(a: &Model, b: &Model) -> bool {
        let pairs = a.outputs().into_iter().zip(b.outputs());
        let mut offs = pairs.map(|((_, a), (_, b))| off(&values(a), &values(b)));
        offs.any(|off| off > 1e-3)
    }
}

/// Moves all parameters of an adapter, and brings them back to where they are allowed.
pub(super) fn train(model: &mut Model, adapter: &str, seed: u64) {
    model.walk_mut("", &mut |_, layer| {
        let Some(slot) = layer.adapters_mut().get_mut(adapter) else {
            return;
        };
        for (number, param) in (0..).zip(slot.params_mut()) {
            let moves = random(param.len(), 100 * seed + number);
            let values = param.to_vec().into_iter().zip(moves);
            param.set(values.map(|(value, by)| value + 0.3 * by).collect());
        }
        if let Some(rotation) = slot.rotation_mut() {
            rotation.constrain();
        }
    });
}
