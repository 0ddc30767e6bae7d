//! Adapters and their folders as PEFT has them: `adapter_config.json` beside
//! `adapter_model.safetensors`.
//!
//! What differs between PEFT's methods is an [`AdapterFamily`], found by its `peft_type` in the
//! [`Families`] that are linked in: one is OFT, and other crates register
//! theirs with [`register_family!`]. Everything else is the same for all of them:
//!
//! - [`attach`] puts a new adapter on a model, [`load`] a saved one, [`save`] writes it;
//! - [`Targets`] chooses layers by PEFT's rules;
//! - `bias` and `modules_to_save` give an adapter tensors of its own beside its rotations. A file
//!   has them with all of their values, as PEFT's does. Here they belong to their adapter and count
//!   only while it is active or merged, with its strength `t`: a bias is `b₀ + Σ t·(b − b₀)` over
//!   the adapters that have one, where `b₀` is the model's, and a module is `w₀ + t·(w − w₀)`; of two
//!   adapters that have the same module only one can be active.

mod attach;
mod block_index;
mod common;
mod defaults;
mod expression;
mod facts;
mod family;
mod folder;
mod keys;
mod mistaken;
mod modules;
mod parts;
mod python;
mod registry;
mod save;
mod saved_modules;
mod selection;
mod site;
mod targets;
mod tensors;
mod text_part;

pub use attach::{attach, attach_folder, load};
pub use common::{CommonConfig, Layers, OneOrMany, PEFT_VERSION};
pub use defaults::peft_default_targets;
pub use facts::ModelFacts;
pub use family::{AdapterConfig, AdapterFamily, ConfigFile};
pub use folder::{AdapterFolder, OwnValues};
pub use keys::{Family, FamilyKeys, read_keys};
pub use mistaken::expect_adapter;
pub use modules::{ModuleKind, Modules};
#[doc(hidden)]
pub use registry::family_entry;
pub use registry::{Families, FamilyRegistration};
pub use save::{Trained, save, save_for, trained};
pub use selection::{Selection, quantized};
pub use site::Site;
pub use targets::Targets;
pub use tensors::{CONFIG, PREFIX, Tensors, WEIGHTS, read_tensors, saved_shapes};
pub use text_part::text_expression;

pub use inventory;
