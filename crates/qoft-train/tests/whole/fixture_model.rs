//! Models of the fixtures.

use burn::tensor::Device;
use qoft_bnb as _;
use qoft_core::{Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_train::tokenizer::Tokenizer;

/// A model, ready to be asked.
pub struct FixtureModel {
    pub model: CausalLm,
    pub tokenizer: Tokenizer,
    pub device: Device,
}

impl FixtureModel {
    /// The model `name` of `models`, with the tokenizer that all of them share.
    pub fn load(name: &str) -> Self {
        let folder = qoft_fixtures::path(&format!("models/{name}"));
        let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        let device = default_device().unwrap();
        Self {
            model: CausalLm::load(&folder, &schemes, &device, &mut |_, _| {}).unwrap(),
            tokenizer: Tokenizer::from_dir(&qoft_fixtures::path("tokenizer")).unwrap(),
            device,
        }
    }
}
