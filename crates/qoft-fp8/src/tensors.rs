//! Names of a layer's tensors.

/// Name of the codes: one byte a weight.
pub const WEIGHT: &str = "weight";
/// Names of the scales: that of transformers, then those of other tools.
pub const SCALES: [&str; 4] = ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"];
/// Ends of the names of what means nothing in a dense checkpoint: the scales that AutoFP8 writes for
/// caches, and those that transformers writes beside layers that it leaves dense.
pub const BESIDE_LAYERS: [&str; 5] = [
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".weight_scale_inv",
    ".activation_scale",
];
