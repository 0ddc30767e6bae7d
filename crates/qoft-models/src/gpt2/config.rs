//! GPT-2's keys of `config.json`.

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;

use crate::activation::activation;
use crate::json::Object;
use crate::norm::{NormConfig, NormKind};

/// Everything below the output head, described.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gpt2Config {
    /// Heads of the attention; they divide the width of the residual stream.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// The norms.
    pub norm: NormConfig,
    /// What the scores of each block are multiplied by.
    pub scales: Vec<f64>,
}

impl Gpt2Config {
    /// Reads and checks the keys, for a residual stream of width `hidden` through so many blocks.
    pub fn read(json: Object, hidden: usize, blocks: usize) -> Result<Self> {
        if json.flag("add_cross_attention")? {
            let reason = "layers that attend to an encoder are not supported";
            return Err(json.error("add_cross_attention", reason));
        }
        json.warn_of_dropout(&["attn_pdrop", "resid_pdrop", "embd_pdrop"])?;
        let activation = activation(json, "activation_function")?;
        let eps = json.positive("layer_norm_epsilon")?.unwrap_or(1e-5);
        let heads = json.require_size("n_head")?;
        if !hidden.is_multiple_of(heads) {
            let reason = format!("{hidden} is no multiple of {heads} heads");
            return Err(json.error("n_embd", reason));
        }
        Ok(Self {
            heads,
            inner: json.size("n_inner")?.unwrap_or(4 * hidden),
            activation: activation.unwrap_or(Activation::GeluTanh),
            norm: NormConfig::new(eps as f32).of_kind(NormKind::Layer { bias: true }),
            scales: scales(json, hidden / heads, blocks)?,
        })
    }
}

/// What the scores of each block are multiplied by. `reorder_and_upcast_attn` needs nothing: scores
/// are computed in f32 anyway.
fn scales(json: Object, head_dim: usize, blocks: usize) -> Result<Vec<f64>> {
    let by_width = json.get("scale_attn_weights")?.unwrap_or(true);
    let by_number = json.flag("scale_attn_by_inverse_layer_idx")?;
    let scale = |number: usize| {
        let mut scale = 1.0;
        if by_width {
            scale /= (head_dim as f64).sqrt();
        }
        if by_number {
            scale /= number as f64;
        }
        scale
    };
    Ok((1..=blocks).map(scale).collect())
}
