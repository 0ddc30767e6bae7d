//! Errors of configurations and folders that are not supported or do not fit.

use crate::common::{load_from, with_config};
use qoft_core::Error;
use serde_json::{Value, json};

/// The error of a fixture with another configuration.
fn message(case: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = with_config(case, change);
    load_from(folder.path()).unwrap_err().to_string()
}

#[test]
fn unsupported_configurations_are_named() {
    let cases: [(&str, &str, Value, &str); 51] = [
        ("llama", "model_type", json!("mamba"), "`mamba`"),
        ("llama", "model_type", Value::Null, "is missing"),
        ("llama", "hidden_act", json!("gelu"), "`gelu`"),
        ("llama", "hidden_size", json!("wide"), "invalid type"),
        ("llama", "hidden_size", json!(0), "must lie in"),
        ("llama", "vocab_size", Value::Null, "is missing"),
        ("llama", "num_key_value_heads", json!(3), "does not divide"),
        ("llama", "head_dim", json!(7), "even number"),
        (
            "llama",
            "num_hidden_layers",
            json!(2_000_000_000),
            "more than",
        ),
        ("llama", "rms_norm_eps", json!(-1), "positive"),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention"]),
            "1 entries",
        ),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "linear_attention"]),
            "`linear_attention`",
        ),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "use_sliding_window",
        ),
        (
            "lfm2",
            "layer_types",
            json!(["conv", "conv", "conv", "mamba"]),
            "`mamba`",
        ),
        ("lfm2", "conv_L_cache", json!(0), "must lie in"),
        ("lfm2", "block_ffn_dim_multiplier", json!(1e300), "too wide"),
        (
            "qwen3_5_text",
            "linear_num_value_heads",
            json!(3),
            "no multiple",
        ),
        (
            "qwen3_5_text",
            "linear_key_head_dim",
            json!(100_000_000),
            "more than",
        ),
        ("qwen3_5_text", "hidden_act", json!("mish"), "`mish`"),
        ("llama", "is_causal", json!(false), "later tokens"),
        ("gemma3_text", "is_causal", json!(false), "later tokens"),
        ("qwen3_5_moe_text", "num_experts", json!(0), "must not be 0"),
        (
            "gemma4_text",
            "enable_moe_block",
            json!(true),
            "not supported",
        ),
        (
            "gemma4_text",
            "num_kv_shared_layers",
            json!(6),
            "no layer before",
        ),
        (
            "gemma4_text",
            "use_bidirectional_attention",
            json!("all"),
            "`all`",
        ),
        (
            "gemma4_text",
            "vocab_size_per_layer_input",
            json!(8),
            "less than",
        ),
        (
            "gemma4_text",
            "per_layer_config",
            json!({"1": {"sliding_window": 2}}),
            "sliding_window",
        ),
        (
            "gemma4_text",
            "rope_parameters",
            json!({"full_attention": {"rope_type": "default"}}),
            "sliding_attention",
        ),
        (
            "granitemoehybrid",
            "layer_types",
            json!(["attention", "mamba"]),
            "Mamba layers",
        ),
        ("cohere2", "sliding_window", Value::Null, "is missing"),
        ("starcoder2", "hidden_act", json!("mish"), "`mish`"),
        ("smollm3", "no_rope_layers", json!([1]), "1 entries"),
        ("exaone4", "sliding_window", Value::Null, "is missing"),
        (
            "ministral3",
            "rope_parameters",
            json!({"rope_type": "yarn", "rope_theta": 100.0}),
            "llama_4_scaling_beta",
        ),
        ("gpt2", "n_embd", json!(30), "no multiple of 4 heads"),
        ("gpt2", "n_layer", json!(2_000_000_000), "more than"),
        ("gpt2", "n_positions", Value::Null, "is missing"),
        ("gpt2", "activation_function", json!("mish"), "`mish`"),
        ("gpt2", "add_cross_attention", json!(true), "encoder"),
        (
            "mixtral",
            "num_experts_per_tok",
            json!(5),
            "there are experts, 4",
        ),
        ("mixtral", "num_local_experts", json!(0), "must not be 0"),
        (
            "mixtral",
            "num_local_experts",
            json!(1_000_000),
            "are more than",
        ),
        ("olmoe", "clip_qkv", json!(-1.0), "positive"),
        ("gpt_oss", "swiglu_limit", json!(-1.0), "positive"),
        ("gpt_oss", "num_local_experts", json!(0), "must not be 0"),
        ("gpt_oss", "sliding_window", Value::Null, "is missing"),
        ("glm4_moe", "n_group", json!(3), "are no 3 groups"),
        ("glm4_moe", "topk_group", json!(1), "do not have 3 experts"),
        ("mistral3", "text_config", Value::Null, "is missing"),
        (
            "mistral3",
            "text_config",
            json!({"model_type": "qwen3"}),
            "`qwen3`",
        ),
        ("qwen2_moe", "decoder_sparse_step", json!(0), "must lie in"),
    ];
    for (case, key, value, reason) in cases {
        let message = message(case, |config| config[key] = value);
        assert!(message.contains("config.json"), "{message}");
        // The key, or one within it.
        let named = [format!("`{key}`"), format!("`{key}.")];
        assert!(named.iter().any(|key| message.contains(key)), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn unsupported_rotary_positions_are_named() {
    let cases = [
        (json!({"rope_type": "spiral"}), "rope_type", "`spiral`"),
        (json!({"rope_type": "linear"}), "factor", "is missing"),
        (
            json!({"rope_type": "linear", "factor": 0}),
            "factor",
            "positive",
        ),
        (
            json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            "short_factor",
            "4 positive numbers",
        ),
        (
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
            "not supported",
        ),
        (
            json!({"full_attention": {"rope_type": "default"}}),
            "full_attention",
            "layer type",
        ),
    ];
    for (rope, key, reason) in cases {
        let message = message("llama", |config| config["rope_parameters"] = rope);
        let named = format!("`rope_parameters.{key}`");
        assert!(message.contains(&named), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn tensors_that_are_missing_or_do_not_fit_are_named() {
    let missing = |case: &str, key: &str, value: Value, name: &str| {
        let folder = with_config(case, |config| config[key] = value);
        match load_from(folder.path()).unwrap_err() {
            Error::MissingTensor { tensor, .. } => assert_eq!(tensor, name),
            other => panic!("{other}"),
        }
    };
    let layer = "model.layers.2.self_attn.q_proj.weight";
    missing("llama", "num_hidden_layers", json!(3), layer);
    let bias = "model.layers.0.self_attn.q_proj.bias";
    missing("llama", "attention_bias", json!(true), bias);
    let bias = "model.layers.0.mlp.gate_proj.bias";
    missing("llama", "mlp_bias", json!(true), bias);
    let head = "lm_head.weight";
    missing("llama", "tie_word_embeddings", json!(false), head);
    let bias = "model.layers.0.self_attn.q_proj.bias";
    missing("llama", "model_type", json!("qwen2"), bias);

    let wrong = message("llama", |config| config["vocab_size"] = json!(65));
    assert!(wrong.contains("`model.embed_tokens.weight`"), "{wrong}");
    assert!(wrong.contains("[65, 32]") && wrong.contains("[64, 32]"));
    let wrong = message("llama", |config| config["intermediate_size"] = json!(41));
    assert!(wrong.contains("`model.layers.0.mlp.gate_proj`"), "{wrong}");
    assert!(wrong.contains("[41, 32]") && wrong.contains("[40, 32]"));
    let layer = "transformer.h.2.ln_1.weight";
    missing("gpt2_bare", "n_layer", json!(3), layer);
    let head = "lm_head.weight";
    missing("gpt2", "tie_word_embeddings", json!(false), head);

    let wrong = message("gpt2", |config| config["n_positions"] = json!(33));
    assert!(wrong.contains("`transformer.wpe.weight`"), "{wrong}");
    let wrong = message("gpt2", |config| config["n_inner"] = json!(41));
    assert!(wrong.contains("`transformer.h.0.mlp.c_fc`"), "{wrong}");
    assert!(
        wrong.contains("[41, 32]") && wrong.contains("[40, 32]"),
        "{wrong}"
    );
    let wrong = message("qwen3", |config| config["head_dim"] = json!(14));
    assert!(wrong.contains("self_attn.q_proj"), "{wrong}");
}
