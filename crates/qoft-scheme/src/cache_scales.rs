//! Names of what files say of quantized caches of keys and values.

/// What begins the names that belong to keys, values and queries.
const OF: [&str; 3] = ["k_", "v_", "q_"];
/// What ends them.
const ENDS: [&str; 3] = ["scale", "zero_point", "global_scale"];
/// Names that do not say of what they are, of keys and values together or of the scores.
const ALONE: [&str; 2] = ["kv_scale", "prob_output_scale"];
/// Names in a layer that makes keys, values or queries, which elsewhere mean something else.
const OF_OUTPUTS: [&str; 6] = [
    "k_proj.output_scale",
    "v_proj.output_scale",
    "q_proj.output_scale",
    "k_proj.k_bias",
    "v_proj.v_bias",
    "q_proj.q_bias",
];

/// Whether a tensor says how a cache of keys and values, or the queries beside it, are quantized. Weights do not
/// depend on it, and nothing here quantizes caches.
///
/// Such a tensor is the attention's own (`self_attn.k_scale`) or that of the layer whose outputs are kept
/// (`self_attn.k_proj.k_scale`).
pub fn is_cache_scale(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let rest = OF.iter().find_map(|of| last.strip_prefix(of));
    let of_outputs = |end: &str| {
        let before = name.strip_suffix(end);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    rest.is_some_and(|rest| ENDS.contains(&rest))
        || ALONE.contains(&last)
        || OF_OUTPUTS.iter().any(|end| of_outputs(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_caches_are_known_by_their_names() {
        for name in [
            "k_scale",
            "model.layers.0.self_attn.k_scale",
            "model.layers.0.self_attn.v_zero_point",
            "model.layers.0.self_attn.q_global_scale",
            "model.layers.0.self_attn.k_proj.k_scale",
            "model.layers.0.self_attn.v_proj.output_scale",
            "model.layers.0.self_attn.k_proj.k_bias",
            "model.layers.0.self_attn.kv_scale",
            "model.layers.0.self_attn.prob_output_scale",
        ] {
            assert!(is_cache_scale(name), "{name}");
        }
        for name in [
            "model.layers.0.self_attn.q_bias",
            "model.layers.0.self_attn.o_proj.output_scale",
            "model.layers.0.self_attn.k_proj.weight_scale",
            "model.layers.0.self_attn.k_proj.bias",
            "model.layers.0.self_attn.block_proj.output_scale",
            "model.layers.0.ask_scale",
        ] {
            assert!(!is_cache_scale(name), "{name}");
        }
    }
}
