//! Which layers a model's adapters are for when a configuration does not say it.

use crate::common::OneOrMany;

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

/// Defaults for model types that PEFT has none for.
const MORE: &[(&[&str], &[&str])] = &[
    (&["granite", "olmo2", "smollm3"], &["q_proj", "v_proj"]),
    (&["phi3"], &["qkv_proj"]),
];

/// PEFT's default `target_modules` of a model type.
pub fn peft_default_targets(model_type: &str) -> Option<OneOrMany> {
    let (of, expression) = EXPRESSION_OF_PEFT;
    if model_type == of {
        return Some(OneOrMany::One(expression.to_owned()));
    }
    find(OF_PEFT, model_type)
}

/// The default `target_modules` of a model type: PEFT's, or ours where it has none.
pub fn default_targets(model_type: &str) -> Option<OneOrMany> {
    peft_default_targets(model_type).or_else(|| find(MORE, model_type))
}

fn find(table: &[(&[&str], &[&str])], model_type: &str) -> Option<OneOrMany> {
    let mut entries = table.iter();
    let (_, names) = entries.find(|(types, _)| types.contains(&model_type))?;
    let names = names.iter().map(|&name| name.to_owned());
    Some(OneOrMany::Many(names.collect()))
}
