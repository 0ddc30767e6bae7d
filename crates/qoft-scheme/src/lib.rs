//! What a quantization scheme is, and the files that it reads and writes. Nothing here needs Burn.
//!
//! - [`Checkpoint`]: a folder of Hugging Face, its tensors on the memory map.
//! - [`Container`]: another file format of checkpoints, which shows itself as such a folder. Formats
//!   enter [`Containers`] through [`register_container!`]; those that have a [`ContainerWriter`] are
//!   written, too.
//! - [`QuantBackend`]: a scheme. Backends enter the [`Registry`] through [`register_backend!`].
//! - [`Schemes`]: a registry that was opened on a checkpoint. A [`Scheme`] claims layers and parses
//!   them, once for loading them as [`PackedWeight`]s and for writing them back.
//! - [`Grid`] and [`CodeSearch`]: how weights are quantized.
//! - [`StagedDir`]: output that is there as a whole, or not at all.

mod backend;
mod cache_scales;
mod capabilities;
mod checkpoint;
mod claimed;
mod container;
mod container_writer;
mod containers;
mod deferred;
mod dense;
mod dense_layer;
mod dtype_name;
mod entry;
mod error;
mod float_grid;
mod grid;
pub mod hub;
mod integer_grid;
mod json;
mod kept_blocks;
mod keys;
mod layer_kind;
mod layer_source;
mod mapped;
mod means;
mod module_patterns;
mod module_rules;
mod options;
mod output;
mod packed_parameter;
mod quantization;
mod quantizer;
mod registry;
mod schemes;
mod settings;
mod small_files;
mod unfit;

pub use backend::{LoadedLinear, ParsedLayer, QuantBackend, Requantize, Scheme};
pub use cache_scales::is_cache_scale;
pub use capabilities::Capabilities;
pub use checkpoint::{CONFIG_KEYS, Checkpoint, NewTensor, WaitingFile};
pub use claimed::{CheckpointLayer, ClaimedLayer};
pub use container::{Container, Contents};
pub use container_writer::{ContainerWriter, ModelTensor, NewModel, WriteTo};
#[doc(hidden)]
pub use containers::container_entry;
pub use containers::{ContainerRegistration, Containers};
pub use deferred::Deferred;
pub use dense::{Dense, dense_weight};
pub use dense_layer::DenseLayer;
pub use dtype_name::dtype_name;
pub use entry::{Entries, Entry, Registered, Tier};
pub use error::{Cause, Error, ErrorKind, FoundTensor, InConfig, Result};
pub use float_grid::FloatGrid;
pub use grid::{CodeSearch, Grid, Nearest, ScaleSearch, ScaledCodes, ScaledGrid};
pub use integer_grid::{IntegerGrid, groups_in_order};
pub use json::{read_bytes, read_json, read_text, read_text_if_there, stands_for_another};
pub use kept_blocks::KeptBlocks;
pub use keys::Keys;
pub use layer_kind::LayerKind;
pub use layer_source::LayerSource;
pub use mapped::{
    MappedFile, MappedTensors, ReadAs, StoredTensor, TensorView, float_dtype, float_format,
};
pub use means::{MeanInParts, PartOfMean, column_mean, mean};
pub use module_patterns::ModulePatterns;
pub use module_rules::ModuleRules;
pub use options::{BackendOptions, Purpose, SchemeOptions};
pub use output::{
    OutputLock, ScratchDir, StagedDir, discard_unfinished, is_of_file_system, refuse_dangling,
    remove_leftovers, write_file,
};
pub use packed_parameter::PackedParameter;
pub use quantization::Quantization;
pub use quantizer::{QuantizedLayer, QuantizedModel, Quantizer};
#[doc(hidden)]
pub use registry::registry_entry;
pub use registry::{Registration, Registry};
pub use schemes::Schemes;
pub use small_files::SmallFiles;
pub use unfit::unfit;

pub use inventory;
pub use qoft_kernels as kernels;
pub use qoft_kernels::{Matrix, PackedWeight, WeightInfo};
pub use safetensors::Dtype;
