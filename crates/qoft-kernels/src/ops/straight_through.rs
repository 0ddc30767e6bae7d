//! Quantization of activations as part of the forward.

use std::fmt::Debug;
use std::sync::Arc;

use crate::op::{Forward, HostOp, HostView};

/// A scheme's quantization of the input of a linear layer, simulated in `f32`.
pub trait InputQuantizer: Debug + Send + Sync + 'static {
    /// Replaces `x`, of rows of `in_features` values, by what the scheme computes with.
    fn quantize(&self, x: &mut [f32], in_features: usize);
}

/// Applies an [`InputQuantizer`]; the gradient passes unchanged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StraightThrough {
    /// The quantizer.
    pub quantizer: Arc<dyn InputQuantizer>,
}

impl StraightThrough {
    /// By this quantizer.
    pub fn new(quantizer: Arc<dyn InputQuantizer>) -> Self {
        Self { quantizer }
    }
}

impl HostOp for StraightThrough {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let mut out = inputs[0].data.to_vec();
        self.quantizer.quantize(&mut out, inputs[0].rows().1);
        Forward::new(inputs[0].shape, out)
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    fn backward(
        &self,
        _inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        vec![Some(grad.data.to_vec())]
    }
}
