//! Hugging Face decoder models in Burn, built from `config.json` and safetensors.
//!
//! [`CausalLm`] covers the model types llama, mistral, qwen2, qwen3, smollm3, olmo2, granite and
//! phi3. Its linear layers are [`qoft_core::Linear`]s under Hugging Face's module paths, so that
//! adapters, targets and checkpoints use one set of names.

mod attention;
mod block;
mod cache;
mod checkpointing;
mod config;
mod json;
mod layers;
mod loader;
mod mlp;
mod model;
mod norm;
mod rope;
mod rope_config;

pub use cache::KvCache;
pub use config::{Family, ModelConfig};
pub use layers::LayerConfig;
pub use model::CausalLm;
pub use rope_config::{RopeConfig, RopeScaling};
