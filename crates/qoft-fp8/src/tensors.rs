//! Names of a layer's tensors.

/// Name of the codes: one byte a weight.
pub const WEIGHT: &str = "weight";
/// Names of the scales: that of transformers, then those of other tools.
pub const SCALES: [&str; 4] = ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"];
/// Ends of the names of the scales that AutoFP8 writes for the cache of an attention.
pub const CACHE_SCALES: [&str; 3] = [".k_scale", ".v_scale", ".kv_scale"];
