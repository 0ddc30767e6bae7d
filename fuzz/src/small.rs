//! A small model, its data and an adapter.

use std::path::PathBuf;

use burn::tensor::Device;
use qoft::core::Schemes;
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::oft::OftConfig;
use qoft::peft::{OneOrMany, attach};
use qoft::train::data::{Dataset, DatasetOptions};
use qoft::train::model_facts;
use qoft::train::tokenizer::Tokenizer;
use qoft::train::train::{ADAPTER, TrainConfig};

/// A fixture.
pub fn fixture(name: &str) -> PathBuf {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/qoft-fixtures/data");
    PathBuf::from(data).join(name)
}

/// A llama of two layers.
///
/// # Panics
/// If its folder is damaged.
pub fn model() -> CausalLm {
    let architectures = Architectures::linked().expect("names that differ");
    let folder = ModelFolder::open(fixture("models/llama"), &architectures).expect("a model");
    let schemes = Schemes::linked(folder.checkpoint()).expect("schemes");
    CausalLm::load(&folder, &schemes, &Device::flex(), &mut |_, _| ()).expect("a model")
}

/// What [`adapted_model`] has.
pub fn adapter_config() -> OftConfig {
    let mut config = OftConfig::default();
    config.common.target_modules = Some(OneOrMany::Many(vec!["q_proj".into()]));
    config.oft_block_size = 8;
    config
}

/// [`model`] with a new adapter that trains.
///
/// # Panics
/// If it does not fit.
pub fn adapted_model() -> CausalLm {
    let mut model = model();
    let spec = model.spec().clone();
    let (config, device) = (adapter_config(), Device::flex().autodiff());
    attach(&mut model, &config, model_facts(&spec), ADAPTER, 1, &device).expect("an adapter");
    model
}

/// Two rows of four tokens.
///
/// # Panics
/// If the file system refuses.
pub fn dataset() -> Dataset {
    let folder = crate::folder();
    let rows = b"{\"input_ids\":[1,2,3,4]}\n{\"input_ids\":[5,6,7,8]}\n";
    crate::write(folder.path(), "rows.jsonl", rows);
    let tokenizer = Tokenizer::from_dir(&fixture("models/llama")).expect("a folder");
    let options = DatasetOptions::new(64);
    Dataset::load(
        &folder.path().join("rows.jsonl"),
        &tokenizer,
        &options,
        None,
    )
    .expect("rows")
}

/// A run of two steps.
pub fn train_config() -> TrainConfig {
    let mut config = TrainConfig::default();
    config.batch_size = 2;
    config.max_steps = Some(2);
    config
}
