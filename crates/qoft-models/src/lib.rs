//! Hugging Face decoder models in Burn, built from `config.json` and safetensors.
//!
//! [`CausalLm`] covers the model types llama, mistral, qwen2, qwen3, smollm3, olmo2, granite, phi3
//! and gpt2. Its linear layers are [`qoft_core::Linear`]s under Hugging Face's module paths, so that
//! adapters, targets and checkpoints use one set of names.

mod cache;
mod checkpointing;
mod config;
mod gpt2;
mod head;
mod json;
mod llama;
mod loader;
mod model;
mod stack;

pub use cache::KvCache;
pub use config::{Architecture, ModelConfig};
pub use gpt2::Gpt2Config;
pub use llama::{DecoderConfig, Family, LayerConfig, RopeConfig, RopeScaling};
pub use model::CausalLm;
