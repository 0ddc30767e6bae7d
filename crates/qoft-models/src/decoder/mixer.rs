//! What mixes the tokens of a block.

use super::attention::AttentionConfig;
use super::delta_net::{DeltaNetCache, DeltaNetConfig};
use crate::key_values::KeyValues;

/// What mixes tokens, described.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one for each block")]
#[non_exhaustive]
pub enum MixerConfig {
    /// Attention, `self_attn`.
    Attention(AttentionConfig),
    /// A recurrence, `linear_attn`.
    DeltaNet(DeltaNetConfig),
}

impl MixerConfig {
    /// Width of the residual stream.
    pub fn hidden(&self) -> usize {
        match self {
            Self::Attention(config) => config.hidden,
            Self::DeltaNet(config) => config.hidden,
        }
    }

    /// The layers that may read the norm before it, below the block.
    pub(super) fn readers(&self) -> &'static [&'static str] {
        match self {
            Self::Attention(_) => &[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.qkv_proj",
            ],
            Self::DeltaNet(_) => &[
                "linear_attn.in_proj_qkv",
                "linear_attn.in_proj_z",
                "linear_attn.in_proj_b",
                "linear_attn.in_proj_a",
            ],
        }
    }
}

impl From<AttentionConfig> for MixerConfig {
    fn from(config: AttentionConfig) -> Self {
        Self::Attention(config)
    }
}

impl From<DeltaNetConfig> for MixerConfig {
    fn from(config: DeltaNetConfig) -> Self {
        Self::DeltaNet(config)
    }
}

/// What a block keeps of earlier tokens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MixerCache {
    /// Of attention.
    KeyValues(KeyValues),
    /// Of a recurrence.
    DeltaNet(DeltaNetCache),
}

impl MixerCache {
    /// The caches of attention among these.
    pub(super) fn key_values<'a>(caches: &'a mut [&mut Self]) -> Vec<&'a mut KeyValues> {
        let kept = caches.iter_mut().filter_map(|cache| match cache {
            Self::KeyValues(kept) => Some(kept),
            Self::DeltaNet(_) => None,
        });
        kept.collect()
    }

    /// The caches of recurrences among these.
    pub(super) fn delta_nets<'a>(caches: &'a mut [&mut Self]) -> Vec<&'a mut DeltaNetCache> {
        let kept = caches.iter_mut().filter_map(|cache| match cache {
            Self::DeltaNet(kept) => Some(kept),
            Self::KeyValues(_) => None,
        });
        kept.collect()
    }
}
