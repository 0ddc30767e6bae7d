//! What a quantization scheme is, and the files that it reads and writes. Nothing here needs Burn.
//!
//! - [`Checkpoint`]: a folder of Hugging Face, its tensors on the memory map.
//! - [`QuantBackend`]: a scheme. It claims layers of a checkpoint and loads them as
//!   [`PackedWeight`]s. Backends enter the [`Registry`] through [`register_backend!`].
//! - [`Grid`] and [`CodeSearch`]: how weights are quantized.
//! - [`StagedDir`]: output that is there as a whole, or not at all.

mod backend;
mod checkpoint;
mod dense;
mod error;
mod grid;
mod integer_grid;
mod layer_kind;
mod layer_source;
mod options;
mod output;
mod registry;

pub use backend::{Capabilities, LoadedLinear, QuantBackend};
pub use checkpoint::{
    Checkpoint, NewTensor, TensorView, WaitingFile, dtype_name, float_dtype, float_format,
};
pub use dense::{Dense, dense_weight};
pub use error::{Error, Result};
pub use grid::{CodeSearch, Grid, Nearest};
pub use integer_grid::IntegerGrid;
pub use layer_kind::LayerKind;
pub use layer_source::LayerSource;
pub use options::{BackendOptions, LoadOptions, Purpose, RequantizeOptions};
pub use output::{
    OutputLock, ScratchDir, StagedDir, discard_unfinished, remove_leftovers, write_file,
};
#[doc(hidden)]
pub use registry::registry_entry;
pub use registry::{Registration, Registry};

pub use inventory;
pub use qoft_kernels as kernels;
pub use qoft_kernels::{Matrix, PackedWeight, WeightInfo};
pub use safetensors::Dtype;
