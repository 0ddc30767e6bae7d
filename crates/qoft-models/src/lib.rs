//! Hugging Face decoder models in Burn, built from `config.json` and safetensors.
//!
//! [`CausalLm`] is a model of any [`Architecture`] that is registered in [`Architectures`]: those of
//! this crate read the model types llama, mistral, qwen2, qwen3, smollm3, olmo2, olmo3, granite,
//! phi3, seed_oss, glm4, exaone4, hunyuan_v1_dense, ministral3, cohere2, granitemoehybrid without Mamba layers, starcoder2, gemma, gemma2, gemma3_text, gemma4_text, the
//! text parts of gemma3, gemma4 and mistral3, gpt2, lfm2, qwen3_5_text, qwen3_5_moe_text, the text parts of
//! qwen3_5 and qwen3_5_moe, qwen3_moe, qwen2_moe, mixtral, olmoe, gpt_oss and glm4_moe, and other crates
//! register theirs with
//! [`register_architecture!`].
//!
//! An architecture turns a `config.json` into a [`ModelSpec`]: what is known of the model before a
//! tensor is read, all of its layers and their sizes among it. Its [`Blueprint`] makes the [`Body`]
//! from a [`Loader`]. Linear layers are [`qoft_core::Linear`]s under Hugging Face's module paths, so
//! that adapters, targets and checkpoints use one set of names. [`decoder`] has parts that many
//! architectures share.

mod activation;
mod any_body;
mod architecture;
mod body;
mod cache;
mod checkpointing;
mod config;
mod continuation;
pub mod decoder;
mod files;
mod folder;
mod gathered;
mod gemma;
mod gemma4;
mod gpt2;
mod head;
mod in_training;
mod json;
mod key_values;
mod last_inputs;
mod layer_spec;
mod layer_types;
mod lfm2;
mod llama_like;
mod loader;
mod model;
mod norm;
mod padding;
mod plan;
mod positions;
mod qwen3_5;
mod registry;
mod spec;
mod starcoder2;
mod targets;
mod zeros;

pub use activation::activation;
pub use any_body::AnyBody;
pub use architecture::Architecture;
pub use body::{Block, Body, Span, Stream};
pub use cache::{Cache, Caches, LayerCache, only};
pub use config::{ModelConfig, ModelNames, SizeKeys};
pub use continuation::Continuation;
pub use folder::ModelFolder;
pub use gathered::Place;
pub use json::Object;
pub use key_values::{KeyValues, attend_each};
pub use last_inputs::LastInputs;
pub use layer_spec::{LayerSpec, ScaledBy};
pub use loader::{Loader, Part};
pub use model::CausalLm;
pub use norm::{NormConfig, NormKind};
pub use padding::pad_token_id;
pub use positions::{Positions, Tokens};
#[doc(hidden)]
pub use registry::architecture_entry;
pub use registry::{ArchitectureRegistration, Architectures};
pub use spec::{Blueprint, ModelSpec};
pub use targets::{Losses, Targets, TrainingBatch};

#[doc(hidden)]
pub use qoft_core::inventory;
