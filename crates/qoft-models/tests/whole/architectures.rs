//! Registries of architectures: order, duplicates, and parts of larger models.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use qoft_core::{Error, Result, Schemes, Tier, Walk, default_device};
use qoft_models::{
    Architecture, ArchitectureRegistration, Architectures, CausalLm, ModelFolder, ModelNames,
    ModelSpec, Object,
};
use serde_json::{Value, json};

/// The text part of a model that sees images: a model of another type inside.
struct Wrapper {
    name: &'static str,
    model_types: &'static [&'static str],
}

impl Architecture for Wrapper {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn reads(&self, config: Object) -> bool {
        let text = config.object("text_config", "text_config.");
        let kind = config.get::<String>("model_type").ok().flatten();
        let known = kind.is_some_and(|kind| self.model_types.contains(&kind.as_str()));
        known && text.is_ok_and(|text| text.is_some())
    }

    fn describe(&self, config: Object) -> Result<ModelSpec> {
        let text = config.object("text_config", "text_config.")?;
        let text = text.ok_or_else(|| config.error("text_config", "is missing"))?;
        let kind = text.require::<String>("model_type")?;
        let inner = Architectures::linked()?.find(&json!({ "model_type": kind }))?;
        const NAMES: ModelNames = ModelNames::USUAL.with_base("model.language_model");
        inner.describe(text)?.with_names(NAMES)
    }
}

static WRAPPER: Wrapper = Wrapper {
    name: "wrapper",
    model_types: &["wrapper"],
};
static OTHER_LLAMA: Wrapper = Wrapper {
    name: "other",
    model_types: &["llama"],
};
static SAME_NAME: Wrapper = Wrapper {
    name: "wrapper",
    model_types: &["something"],
};

fn entry(architecture: &'static dyn Architecture) -> ArchitectureRegistration {
    ArchitectureRegistration::new(architecture)
}

#[test]
fn all_built_in_architectures_are_linked() {
    let linked = Architectures::linked().unwrap();
    let types = linked.architectures().flat_map(Architecture::model_types);
    let types: Vec<&str> = types.copied().collect();
    let built_in = [
        "cohere2",
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma4",
        "gemma4_text",
        "glm4",
        "glm4_moe",
        "gpt2",
        "gpt_oss",
        "granite",
        "granitemoehybrid",
        "hunyuan_v1_dense",
        "lfm2",
        "llama",
        "ministral3",
        "mistral",
        "mistral3",
        "mixtral",
        "olmo2",
        "olmo3",
        "olmoe",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "starcoder2",
    ];
    assert_eq!(types, built_in);
}

#[test]
fn lengths_that_files_leave_out_are_those_of_transformers() {
    // Of its configuration classes, in version 5.23.
    let lengths = [
        ("cohere2", 8192),
        ("exaone4", 2048),
        ("gemma2", 8192),
        ("gemma3_text", 131_072),
        ("glm4", 131_072),
        ("glm4_moe", 131_072),
        ("gpt2", 1024),
        ("gpt_oss", 131_072),
        ("granite", 2048),
        ("granitemoehybrid", 2048),
        ("hunyuan", 2048),
        ("lfm2", 128_000),
        ("llama", 2048),
        ("ministral3", 262_144),
        ("mistral", 131_072),
        ("mistral3", 262_144),
        ("mixtral", 131_072),
        ("olmo2", 2048),
        ("olmo3", 2048),
        ("olmoe", 4096),
        ("phi3", 4096),
        ("qwen2", 32_768),
        ("qwen2_moe", 32_768),
        ("qwen3", 32_768),
        ("qwen3_5", 32_768),
        ("qwen3_moe", 32_768),
        ("seed_oss", 524_288),
        ("smollm3", 32_768),
        ("starcoder2", 4096),
    ];
    let architectures = Architectures::linked().unwrap();
    for (case, length) in lengths {
        let file = qoft_fixtures::path(&format!("models/{case}/config.json"));
        let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for part in ["", "/text_config"] {
            if let Some(part) = config.pointer_mut(part).and_then(Value::as_object_mut) {
                for key in ["max_position_embeddings", "n_positions"] {
                    part.shift_remove(key);
                }
            }
        }
        let spec = architectures
            .describe(&config)
            .unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(spec.config().max_position_embeddings, length, "{case}");
    }
}

#[test]
fn it_is_never_unclear_which_architecture_is_meant() {
    let same_name = [entry(&WRAPPER), entry(&SAME_NAME)];
    let error = Architectures::new(&same_name).map(drop).unwrap_err();
    assert!(matches!(error, Error::Duplicate { .. }));
    assert!(error.to_string().contains("`wrapper`"), "{error}");

    let linked = Architectures::linked().unwrap();
    let error = linked.with(&entry(&OTHER_LLAMA)).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`llama`") && text.contains("llama and other"),
        "{text}"
    );
}

#[test]
fn one_may_take_the_place_of_another() {
    let first = entry(&WRAPPER);
    let second = entry(&SAME_NAME).replacing();
    let config = || json!({"model_type": "something", "text_config": {"a": 1}});
    for entries in [[first, second], [second, first]] {
        let list = Architectures::new(&entries).unwrap();
        assert_eq!(list.registrations().len(), 1);
        assert_eq!(list.find(&config()).unwrap().model_types(), ["something"]);
    }
    assert!(Architectures::new(&[second, second]).is_err());
}

#[test]
fn tiers_decide_who_is_asked_first() {
    let linked = Architectures::linked().unwrap();
    let plain = json!({"model_type": "llama"});
    let with_text = json!({"model_type": "llama", "text_config": {"model_type": "llama"}});
    let found = |list: &Architectures, config: &Value| list.find(config).unwrap().name();
    for (tier, expected) in [(Tier::Preferred, "other"), (Tier::Fallback, "llama")] {
        let list = linked.with(&entry(&OTHER_LLAMA).in_tier(tier)).unwrap();
        assert_eq!(found(&list, &with_text), expected);
        // The other one does not read this.
        assert_eq!(found(&list, &plain), "llama");
    }
    let wrapper = Architectures::new([&entry(&WRAPPER)]).unwrap();
    let error = wrapper.find(&plain).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("`llama` is not supported; supported are wrapper"),
        "{error}"
    );
}

/// The llama of the fixtures inside a larger model, with a layer that sees images.
fn write_wrapped(folder: &Path) {
    let source = qoft_fixtures::path("models/llama");
    let config = std::fs::read(source.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let config = json!({"model_type": "wrapper", "text_config": config});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let file = std::fs::read(source.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let renamed = tensors.iter().map(|(name, tensor)| {
        let below = name.strip_prefix("model.").unwrap();
        (format!("model.language_model.{below}"), tensor)
    });
    let seen = tensors.tensor("model.norm.weight").unwrap();
    let all = renamed.chain([("model.vision_tower.norm.weight".to_owned(), seen)]);
    safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).unwrap();
}

#[test]
fn the_text_part_of_a_larger_model_computes_as_the_model_alone() {
    let work = tempfile::tempdir().unwrap();
    write_wrapped(work.path());
    let linked = Architectures::linked().unwrap();
    let device = default_device().unwrap();
    let load = |folder: &ModelFolder| {
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        CausalLm::load(folder, &schemes, &device, &mut |_, _| ()).unwrap()
    };
    let alone = load(&ModelFolder::open(qoft_fixtures::path("models/llama"), &linked).unwrap());
    let wrapped = Architectures::new([&entry(&WRAPPER)]).unwrap();
    let wrapped = load(&ModelFolder::open(work.path(), &wrapped).unwrap());

    let ids = Tensor::<2, Int>::from_data([[5, 6, 7, 8]], &device);
    let logits = |model: &CausalLm| model.last_logits(ids.clone(), None).into_data();
    assert_eq!(logits(&alone), logits(&wrapped));
    let paths = |model: &CausalLm| -> Vec<String> {
        let layers = model.layers().into_iter();
        layers.map(|(path, _)| path).collect()
    };
    let named = paths(&alone).into_iter();
    let named = named.map(|path| match path.strip_prefix("model.") {
        Some(below) => format!("model.language_model.{below}"),
        None => path,
    });
    assert_eq!(paths(&wrapped), named.collect::<Vec<_>>());

    // Without the architecture the folder can be opened, but not computed.
    let unknown = ModelFolder::open(work.path(), &linked).unwrap();
    assert!(unknown.known().is_none() && unknown.refused().is_none());
    let error = unknown.spec().unwrap_err().to_string();
    assert!(error.contains("`wrapper` is not supported"), "{error}");
}

#[test]
fn names_of_files_are_made_those_of_the_model() {
    let linked = Architectures::linked().unwrap();
    let folder = ModelFolder::open(qoft_fixtures::path("models/gpt2_bare"), &linked).unwrap();
    let names: Vec<&str> = folder.checkpoint().names().collect();
    assert!(names.iter().all(|name| name.starts_with("transformer.")));
    assert!(names.contains(&"transformer.h.0.attn.masked_bias"));
    let table = folder
        .checkpoint()
        .tensor("transformer.wte.weight")
        .unwrap();
    assert_eq!(table.name(), "transformer.wte.weight");
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_loaded() {
    let config = std::fs::read(qoft_fixtures::path("models/llama/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["hidden_size"] = json!(2_000_000_000);
    let linked = Architectures::linked().unwrap();
    let error = linked.describe(&config).unwrap_err().to_string();
    assert!(error.contains("input_layernorm.weight"), "{error}");
    config["hidden_size"] = json!(4096);
    config["num_hidden_layers"] = json!(10_000);
    assert_eq!(linked.describe(&config).unwrap().layers().len(), 90_003);
}
