//! The operations of a transformer with rotations, each with its handwritten backward.

mod activation;
mod attention;
mod cayley;
mod cross_entropy;
mod dense_matmul;
mod embedding;
mod layer_norm;
mod norm;
mod packed_matmul;
mod rope;
mod rotate;
mod straight_through;
mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
mod trained_cross_entropy;

pub use activation::Activation;
pub use attention::CausalAttention;
pub use cayley::{Cayley, CayleyMap, coft_project, pairs};
pub use cross_entropy::{CrossEntropy, LinearCrossEntropy};
pub use dense_matmul::DenseMatmul;
pub use embedding::embed;
pub use layer_norm::LayerNorm;
pub use norm::RmsNorm;
pub use packed_matmul::packed_matmul;
pub use rope::Rope;
pub use rotate::{Rotate, rotate};
pub use straight_through::{InputQuantizer, StraightThrough};
pub use swiglu::SwiGlu;
pub use trained_cross_entropy::{Operand, TrainedCrossEntropy};
