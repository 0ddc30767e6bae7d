//! The operations of a transformer with rotations, each with its handwritten backward.

mod activation;
mod attention;
mod causal_convolution;
mod cayley;
mod clamped_swiglu;
mod cross_entropy;
mod delta_rule;
mod dense_matmul;
mod embedding;
mod gated;
mod grouped_matmul;
mod head_loss;
mod layer_norm;
mod norm;
mod packed_matmul;
mod rope;
mod rotate;
mod routed_rows;
mod soft_cap;
mod straight_through;
#[cfg(test)]
pub(crate) mod testing;
mod trained_cross_entropy;
mod weighted_gated;

pub use activation::Activation;
pub use attention::CausalAttention;
pub use causal_convolution::CausalConvolution;
pub use cayley::{Cayley, CayleyMap, coft_project, pairs};
pub use clamped_swiglu::ClampedSwiglu;
pub use cross_entropy::LinearCrossEntropy;
pub use delta_rule::GatedDeltaRule;
pub use dense_matmul::DenseMatmul;
pub use embedding::embed;
pub use gated::Gated;
pub use grouped_matmul::GroupedMatmul;
pub use head_loss::{CrossEntropy, Groups};
pub use layer_norm::LayerNorm;
pub use norm::RmsNorm;
pub use packed_matmul::packed_matmul;
pub use rope::Rope;
pub use rotate::{Rotate, rotate};
pub use routed_rows::{CollectRows, RoutedRows, SpreadRows};
pub use soft_cap::SoftCap;
pub use straight_through::{InputQuantizer, StraightThrough};
pub use trained_cross_entropy::{Operand, TrainedCrossEntropy};
pub use weighted_gated::WeightedGated;
