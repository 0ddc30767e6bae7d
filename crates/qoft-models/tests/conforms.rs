//! The behaviour of every architecture, for those of this crate.

use qoft_conformance::ArchitectureSubject;
use qoft_core::Result;
use qoft_models::{
    Architecture, ArchitectureRegistration, Architectures, ModelNames, ModelSpec, Object,
};
use serde_json::json;

#[test]
fn all_built_in_architectures_conform() {
    // Where frequencies depend on the length of the sequence, keys in a cache differ, in transformers
    // too; these models are in the other tests.
    let folders = [
        "cohere2",
        "cohere2_options",
        "exaone4",
        "exaone4_full",
        "exaone4_types",
        "gemma",
        "gemma2",
        "gemma2_options",
        "gemma3",
        "gemma3_named",
        "gemma3_text",
        "gemma4",
        "gemma4_text",
        "gemma4_text_options",
        "glm4",
        "glm4_moe",
        "glm4_moe_options",
        "glm4_options",
        "gpt2",
        "gpt2_bare",
        "gpt2_options",
        "gpt_oss",
        "gpt_oss_options",
        "granite",
        "granitemoehybrid",
        "granitemoehybrid_experts",
        "hunyuan",
        "hunyuan_options",
        "lfm2",
        "lfm2_options",
        "llama",
        "llama_bias",
        "llama_rope_llama3",
        "ministral3",
        "ministral3_options",
        "mistral",
        "mistral3",
        "mistral3_llama",
        "mistral3_mistral",
        "mixtral_fused",
        "olmo2",
        "olmo3",
        "olmo3_options",
        "olmoe",
        "phi3",
        "phi3_partial",
        "qwen2",
        "qwen2_moe",
        "qwen2_sliding",
        "qwen3",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_5_text_options",
        "qwen3_moe_options",
        "seed_oss",
        "seed_oss_options",
        "smollm3",
        "starcoder2",
        "starcoder2_options",
    ];
    let folders = folders.map(|case| qoft_fixtures::path(&format!("models/{case}")));
    ArchitectureSubject::new(Architectures::linked().unwrap())
        .folders(folders)
        .reference("expected.json")
        .check();
}

/// Reads mistral's models as if they were llama's, without their windows.
struct WithoutWindows(ModelNames);

impl Architecture for WithoutWindows {
    fn name(&self) -> &'static str {
        "without windows"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["mistral"]
    }

    fn describe(&self, config: Object) -> Result<ModelSpec> {
        let llama = Architectures::linked()?.find(&json!({"model_type": "llama"}))?;
        llama.describe(config)?.with_names(self.0)
    }
}

static WITHOUT_WINDOWS: WithoutWindows = WithoutWindows(ModelNames::USUAL);
static WITH_OTHER_NAMES: WithoutWindows =
    WithoutWindows(ModelNames::USUAL.with_tokens("embeddings"));

fn check(architecture: &'static WithoutWindows) {
    let list = Architectures::new([&ArchitectureRegistration::new(architecture)]).unwrap();
    ArchitectureSubject::new(list)
        .folders([qoft_fixtures::path("models/mistral")])
        .reference("expected.json")
        .check();
}

#[test]
#[should_panic(expected = "transformers has")]
fn another_loss_is_noticed() {
    check(&WITHOUT_WINDOWS);
}

#[test]
#[should_panic(expected = "no table of tokens is at `model.embeddings`")]
fn a_wrong_name_is_noticed() {
    check(&WITH_OTHER_NAMES);
}
