//! What a backend says that it cannot do is not done.

use std::num::NonZeroUsize;

use qoft::core::kernels::FloatFormat;
use qoft::core::{
    BackendOptions, Capabilities, Checkpoint, Error, Keys, Nearest, QuantBackend, Quantizer,
    Registration, Registry, Result, Scheme, SchemeOptions, Schemes, default_device,
};
use qoft::models::{Architectures, CausalLm, ModelFolder};
use qoft::oft::OftConfig;
use qoft::peft::{self, AdapterFolder, CommonConfig, Families, ModelFacts};
use qoft::{
    MergePlan, MergeTarget, ScaledAdapter, check_trainable, dequantize, export_lora, inspect,
};
use serde_json::json;

/// The built-in backend of 4-bit layers with other capabilities.
struct Limited(Capabilities);

impl QuantBackend for Limited {
    fn name(&self) -> &'static str {
        "bnb-4bit"
    }

    fn capabilities(&self) -> Capabilities {
        self.0
    }

    fn open(
        &self,
        checkpoint: &Checkpoint,
        options: &SchemeOptions,
    ) -> Result<Option<Box<dyn Scheme>>> {
        let built_in = Registry::linked()?.backend(self.name())?;
        built_in.open(checkpoint, options)
    }

    fn quantizer(&self, settings: &Keys) -> Result<Option<Box<dyn Quantizer>>> {
        Registry::linked()?
            .backend(self.name())?
            .quantizer(settings)
    }
}

static NO_TRAINING: Limited = Limited(Capabilities::LINEAR.without_train());
static NO_DENSE: Limited = Limited(Capabilities::LINEAR.and_requantize().without_dequantize());

fn folder() -> ModelFolder {
    let path = qoft_fixtures::path("models/llama_nf4");
    ModelFolder::open(&path, &Architectures::linked().unwrap()).unwrap()
}

fn schemes(folder: &ModelFolder, backend: &'static Limited) -> Schemes {
    let entry = Registration::new(backend).replacing();
    let registry = Registry::linked().unwrap().with(&entry).unwrap();
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default());
    schemes.unwrap()
}

/// A model with a new adapter on the layers of a name.
fn adapted(folder: &ModelFolder, schemes: &Schemes, layer: &str) -> CausalLm {
    let device = default_device().unwrap();
    let model = CausalLm::load(folder, schemes, &device, &mut |_, _| ());
    let mut model = model.unwrap();
    let mut config = OftConfig::default();
    config.oft_block_size = 4;
    config.common = CommonConfig::targeting([layer]);
    let facts = ModelFacts::of_type("llama").with_head("lm_head");
    peft::attach(&mut model, &config, facts, "new", 1, &device.autodiff()).unwrap();
    model
}

#[test]
fn layers_that_do_not_train_get_no_adapter_that_trains() {
    let folder = folder();
    let limited = schemes(&folder, &NO_TRAINING);
    let model = adapted(&folder, &limited, "q_proj");
    let error = check_trainable(&folder, &limited, &model).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Incapable { .. }), "{text}");
    for part in ["layers.0.self_attn.q_proj", "bnb-4bit", "train"] {
        assert!(text.contains(part), "{text}");
    }
    // The table is dense, and the built-in scheme trains.
    let table = adapted(&folder, &limited, "embed_tokens");
    check_trainable(&folder, &limited, &table).unwrap();
    let built_in = Schemes::linked(folder.checkpoint()).unwrap();
    check_trainable(&folder, &built_in, &model).unwrap();
}

#[test]
fn layers_that_do_not_dequantize_are_not_made_dense() {
    let folder = folder();
    let limited = schemes(&folder, &NO_DENSE);
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("dense");
    let error = dequantize(&folder, &limited, &output, FloatFormat::F32, &|_, _| ());
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Incapable { .. }), "{text}");
    assert!(
        text.contains("bnb-4bit") && text.contains("dense"),
        "{text}"
    );
    assert!(!output.exists());
    // What it can do, it does.
    inspect(&folder, &limited).unwrap();
    MergePlan::new(&folder, &limited, &[], MergeTarget::SameScheme(&Nearest)).unwrap();
}

#[test]
fn layers_that_do_not_dequantize_are_not_exported() {
    let (folder, work) = (folder(), tempfile::tempdir().unwrap());
    let path = qoft_fixtures::path("adapters/list_names");
    let adapters = [ScaledAdapter::new(
        AdapterFolder::open(&path, &Families::linked().unwrap()).unwrap(),
        1.0,
    )];
    let output = work.path().join("lora");
    let rank = NonZeroUsize::new(2).unwrap();
    let export =
        |schemes: &Schemes| export_lora(&folder, schemes, &adapters, rank, &output, &|_, _| ());
    let error = export(&schemes(&folder, &NO_DENSE)).unwrap_err();
    assert!(matches!(error, Error::Incapable { .. }), "{error}");
    assert!(!output.exists());
    export(&Schemes::linked(folder.checkpoint()).unwrap()).unwrap();
}

#[test]
fn backends_that_do_not_quantize_are_not_asked_to() {
    let built_in = Registry::linked().unwrap();
    let entry = Registration::new(&NO_TRAINING).replacing();
    let limited = built_in.with(&entry).unwrap();
    let config = || json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    let keys = || Keys::new("the test", config());
    for found in [
        limited.quantization("bnb-4bit", &keys()),
        limited.quantization_of(&keys()),
        limited.parse_quantization("bnb-4bit"),
    ] {
        let text = found.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("hqq"), "it tells who can: {text}");
        assert!(!text.contains("bnb-4bit, "), "{text}");
    }
    assert_eq!(
        built_in.quantization_of(&keys()).unwrap().backend(),
        "bnb-4bit"
    );
}

#[test]
fn layers_that_cannot_be_written_are_not_merged_into() {
    let folder = folder();
    let path = qoft_fixtures::path("adapters/list_names");
    let adapters = [ScaledAdapter::new(
        AdapterFolder::open(&path, &Families::linked().unwrap()).unwrap(),
        1.0,
    )];
    let same = MergeTarget::SameScheme(&Nearest);
    let limited = schemes(&folder, &NO_TRAINING);
    let error = MergePlan::new(&folder, &limited, &adapters, same)
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::Requantize { .. }), "{text}");
    assert!(text.contains("bnb-4bit"), "{text}");
    let dense = MergeTarget::Dense(FloatFormat::F32);
    MergePlan::new(&folder, &limited, &adapters, dense).unwrap();
    let built_in = Schemes::linked(folder.checkpoint()).unwrap();
    MergePlan::new(&folder, &built_in, &adapters, same).unwrap();
}
