//! The folder of an adapter: `adapter_config.json`, the header of the safetensors file, its tensors.
#![no_main]

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use qoft::models::CausalLm;
use qoft::peft::{AdapterFolder, CONFIG, Families, WEIGHTS, attach_folder};
use qoft::train::model_facts;
use qoft_cli as _;
use qoft_fuzz::{folder, parts, safetensors, small, write};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
static FAMILIES: LazyLock<Families> =
    LazyLock::new(|| Families::linked().expect("names that differ"));

thread_local! {
    static MODEL: CausalLm = small::model();
}

fuzz_target!(|input: &[u8]| {
    let [config, header, tensors] = parts(input);
    write(FOLDER.path(), CONFIG, config);
    write(FOLDER.path(), WEIGHTS, &safetensors(header, tensors));
    let Ok(adapter) = AdapterFolder::open(FOLDER.path(), &FAMILIES) else {
        return;
    };
    let mut model = MODEL.with(Clone::clone);
    let spec = model.spec().clone();
    for strength in [1.0, 0.5] {
        let (facts, device) = (model_facts(&spec), Device::flex());
        let name = strength.to_string();
        let _ = attach_folder(&mut model, &adapter, strength, facts, &name, &device);
    }
});
