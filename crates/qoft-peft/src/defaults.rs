//! Which layers a model's adapters are for when a configuration does not say it.

use crate::common::OneOrMany;
use crate::facts::ModelFacts;

/// PEFT's defaults, of OFT and HRA alike (`TRANSFORMERS_MODELS_TO_OFT_TARGET_MODULES_MAPPING`).
const OF_PEFT: &[(&[&str], &[&str])] = &[
    (
        &[
            "bart",
            "gemma",
            "gemma2",
            "gemma3_text",
            "gpt_neo",
            "gptj",
            "llama",
            "llama4",
            "mistral",
            "mixtral",
            "opt",
            "qwen2",
            "qwen3",
            "stablelm",
        ],
        &["q_proj", "v_proj"],
    ),
    (
        &["bert", "electra", "layoutlm", "roberta", "xlm-roberta"],
        &["query", "value"],
    ),
    (
        &[
            "RefinedWeb",
            "RefinedWebModel",
            "bloom",
            "chatglm",
            "falcon",
            "gpt_neox",
        ],
        &["query_key_value"],
    ),
    (&["gpt2", "gpt_bigcode"], &["c_attn"]),
    (&["mt5", "t5"], &["q", "v"]),
    (&["blip-2"], &["q", "v", "q_proj", "v_proj"]),
    (&["btlm"], &["c_proj", "c_attn"]),
    (&["codegen"], &["qkv_proj"]),
    (&["deberta"], &["in_proj"]),
    (&["deberta-v2"], &["query_proj", "value_proj"]),
    (&["mpt"], &["Wqkv"]),
    (&["nemotron_h"], &["q_proj", "k_proj", "v_proj", "o_proj"]),
    (&["phi"], &["q_proj", "v_proj", "fc1", "fc2"]),
    (&["rwkv"], &["key", "value", "receptance", "output"]),
    (
        &["rwkv7"],
        &["r_proj", "k_proj", "v_proj", "o_proj", "key", "value"],
    ),
];

/// PEFT's only default that is an expression.
const EXPRESSION_OF_PEFT: (&str, &str) = ("gemma4", r".*language_model\..*\.(q_proj|v_proj)");

/// PEFT's default `target_modules` of a model type.
pub fn peft_default_targets(model_type: &str) -> Option<OneOrMany> {
    let (of, expression) = EXPRESSION_OF_PEFT;
    if model_type == of {
        return Some(OneOrMany::One(expression.to_owned()));
    }
    find(OF_PEFT, model_type)
}

/// The default `target_modules` of a model: PEFT's for its type, or the model's own where PEFT has
/// none.
pub fn default_targets(facts: ModelFacts) -> Option<OneOrMany> {
    let own = facts.default_targets.iter().map(|&name| name.to_owned());
    let own = Some(OneOrMany::Many(own.collect())).filter(|_| !facts.default_targets.is_empty());
    peft_default_targets(facts.model_type).or(own)
}

fn find(table: &[(&[&str], &[&str])], model_type: &str) -> Option<OneOrMany> {
    let mut entries = table.iter();
    let (_, names) = entries.find(|(types, _)| types.contains(&model_type))?;
    let names = names.iter().map(|&name| name.to_owned());
    Some(OneOrMany::Many(names.collect()))
}
