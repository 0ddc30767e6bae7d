//! Names of a layer's tensors.

/// Name of the codes: one byte a weight.
pub const WEIGHT: &str = "weight";
/// Names of the scales: that of transformers, then those of other tools.
pub const SCALES: [&str; 4] = ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"];
/// Ends of the names of the scales that transformers writes beside layers that it leaves dense.
pub const BESIDE_LAYERS: [&str; 2] = [".weight_scale_inv", ".activation_scale"];
