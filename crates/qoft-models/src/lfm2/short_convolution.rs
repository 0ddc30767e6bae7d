//! A short convolution between two gates.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::ops::Traced;
use qoft_core::{CausalConv1d, Linear, Result, Walk};

use super::ConvolutionConfig;
use crate::body::Span;
use crate::cache::Caches;
use crate::last_inputs::LastInputs;
use crate::loader::Loader;

/// `out_proj(c · conv(b · x))`, where `in_proj` makes `b`, `c` and `x`.
#[derive(Module, Debug, Walk)]
pub struct ShortConvolution {
    conv: CausalConv1d,
    in_proj: Linear,
    out_proj: Linear,
}

impl ShortConvolution {
    /// Makes the layers.
    pub fn load(loader: &Loader, config: ConvolutionConfig) -> Result<Self> {
        let ConvolutionConfig {
            hidden,
            width,
            bias,
        } = config;
        let layers = Self {
            conv: loader.causal_conv1d("conv", [hidden, width], bias)?,
            in_proj: loader.linear("in_proj", [3 * hidden, hidden], bias)?,
            out_proj: loader.linear("out_proj", [hidden, hidden], bias)?,
        };
        // The gate behind the convolution.
        loader.feeds("in_proj", hidden, &["out_proj"]);
        Ok(layers)
    }

    /// The layer on `x` of `[batch · time, hidden]` and what is kept of earlier tokens, of each sequence.
    pub fn forward(
        &self,
        x: Traced<2>,
        [batch, time]: [usize; 2],
        span: &Span,
        caches: Caches<LastInputs>,
    ) -> Tensor<2> {
        let hidden = self.out_proj.in_features();
        let parts = self.in_proj.forward(x).reshape([batch, time, 3 * hidden]);
        let [b, c, x] = [0, 1, 2].map(|part| parts.clone().narrow(2, part * hidden, hidden));
        let gated = b * x;
        let convolved = match caches {
            Some(caches) => {
                let convolved =
                    |[x]: [Tensor<3>; 1], kept: &mut LastInputs| kept.convolve(&self.conv, x);
                span.positions.continued([gated], caches, &convolved)
            }
            // Each sequence of a row begins anew.
            None => {
                let convolved = |[x]: [Tensor<3>; 1]| self.conv.forward(x);
                span.positions.each([gated], &convolved)
            }
        };
        // The convolution may train where the projection does not.
        let (c, convolved) = qoft_core::ops::lifted(c, convolved);
        self.out_proj
            .forward((c * convolved).reshape([batch * time, hidden]))
    }
}
