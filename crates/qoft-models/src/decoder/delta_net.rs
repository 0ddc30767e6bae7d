//! A gated delta net: a recurrence in the place of attention.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use qoft_core::kernels::ops::{Activation, GatedDeltaRule};
use qoft_core::ops::{self, Traced};
use qoft_core::{CausalConv1d, Linear, Norm, Result, Still, Walk};

use crate::body::Span;
use crate::cache::Caches;
use crate::last_inputs::LastInputs;
use crate::loader::Loader;
use crate::norm::NormConfig;

/// A gated delta net, described.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeltaNetConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// The recurrence: its heads and their widths.
    pub rule: GatedDeltaRule,
    /// Tokens that one output of the convolution sees.
    pub convolution: usize,
    /// What comes out of the convolution goes through this.
    pub activation: Activation,
    /// The norm of the heads' outputs.
    pub norm: NormConfig,
}

impl DeltaNetConfig {
    /// A recurrence behind a convolution over `convolution` tokens, which goes through `silu`.
    pub fn new(hidden: usize, rule: GatedDeltaRule, convolution: usize, norm: NormConfig) -> Self {
        Self {
            hidden,
            rule,
            convolution,
            activation: Activation::Silu,
            norm,
        }
    }
}

/// What a delta net keeps of earlier tokens.
#[derive(Debug, Clone, Default)]
pub struct DeltaNetCache {
    inputs: LastInputs,
    /// States of the heads, `[batch, value_heads, key_dim, value_dim]`; none before the first token.
    states: Option<Tensor<4>>,
}

/// `out_proj(norm(rule(f(conv1d(in_proj_qkv(x))), g, β)) · silu(in_proj_z(x)))` with the decays
/// `g = −exp(A_log) · softplus(in_proj_a(x) + dt_bias)` and rates `β = sigmoid(in_proj_b(x))`.
#[derive(Module, Debug, Walk)]
pub struct DeltaNet {
    conv1d: CausalConv1d,
    norm: Norm,
    out_proj: Linear,
    in_proj_qkv: Linear,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    /// `exp(A_log)`.
    #[walk(skip)]
    speed: Still<Tensor<1>>,
    #[walk(skip)]
    dt_bias: Still<Tensor<1>>,
    #[module(skip)]
    #[walk(skip)]
    rule: GatedDeltaRule,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
}

impl DeltaNet {
    /// Makes the layers.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, config: &DeltaNetConfig) -> Result<Self> {
        let (hidden, rule) = (config.hidden, config.rule);
        let (width, heads) = (rule.in_features(), rule.value_heads);
        let values = rule.out_features();
        let input = |name, out| loader.linear(name, [out, hidden], false);
        Ok(Self {
            conv1d: loader.causal_conv1d("conv1d", [width, config.convolution], false)?,
            norm: loader.norm("norm", rule.value_dim, config.norm)?,
            out_proj: loader.linear("out_proj", [hidden, values], false)?,
            in_proj_qkv: input("in_proj_qkv", width)?,
            in_proj_z: input("in_proj_z", values)?,
            in_proj_b: input("in_proj_b", heads)?,
            in_proj_a: input("in_proj_a", heads)?,
            speed: Still::new(loader.tensor("A_log", [heads])?.exp()),
            dt_bias: Still::new(loader.tensor("dt_bias", [heads])?),
            rule,
            activation: config.activation,
        })
    }

    /// The net on `x` of `[batch · time, hidden]` and what is kept of earlier tokens, of each sequence.
    pub fn forward(
        &self,
        x: Traced<2>,
        [batch, time]: [usize; 2],
        span: &Span,
        caches: Caches<DeltaNetCache>,
    ) -> Tensor<2> {
        let layers = [
            &self.in_proj_qkv,
            &self.in_proj_z,
            &self.in_proj_b,
            &self.in_proj_a,
        ];
        let [qkv, z, b, a] = Linear::forward_each(layers, x);
        let rows = |x: Tensor<2>| {
            let width = x.dims()[1];
            x.reshape([batch, time, width])
        };
        let (qkv, decay, beta) = (rows(qkv), rows(self.decay(a)), rows(sigmoid(b)));
        let keep = |x: Tensor<3>| self.out_proj.keep(x);
        let activated = |qkv| ops::activation(keep(qkv), self.activation);
        let y = match caches {
            // Each sequence of a row begins anew.
            None => span
                .positions
                .each([qkv, decay, beta], &|[qkv, decay, beta]| {
                    let qkv = activated(self.conv1d.forward(qkv));
                    // Decays and rates are few, and much depends on them.
                    ops::gated_delta_rule([keep(qkv), decay.into(), beta.into()], self.rule)
                }),
            Some(caches) => {
                let inputs = [qkv, decay, beta];
                span.positions.continued(inputs, caches, &|inputs, kept| {
                    let [qkv, decay, beta] = inputs;
                    let qkv = activated(kept.inputs.convolve(&self.conv1d, qkv));
                    let inputs = [qkv, decay, beta];
                    let states = kept.states.take();
                    let (y, states) = ops::gated_delta_rule_from(inputs, states, self.rule);
                    kept.states = Some(states);
                    y
                })
            }
        };
        let width = self.rule.value_dim;
        let heads = batch * time * self.rule.value_heads;
        let y = self.norm.forward(y.reshape([heads, width]));
        let gate = self.out_proj.keep(z).reshape([heads, width]);
        let y = ops::gated(gate, y, Activation::Silu);
        self.out_proj
            .forward(y.reshape([batch * time, self.rule.out_features()]))
    }

    /// Logarithms of the decays, `[rows, value_heads]`.
    fn decay(&self, a: Tensor<2>) -> Tensor<2> {
        let (a, bias) = ops::lifted(a, Tensor::clone(&self.dt_bias));
        let (a, speed) = ops::lifted(a + bias.unsqueeze(), Tensor::clone(&self.speed));
        // `softplus(x) = −log(sigmoid(−x))`.
        log_sigmoid(a.neg()) * speed.unsqueeze()
    }
}
