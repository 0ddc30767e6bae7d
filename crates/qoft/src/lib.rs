//! qoft: Orthogonal Fine-Tuning of quantized language models on Burn.
//!
//! This crate joins the others and selects quantization schemes by the Cargo features in [`SCHEMES`], or
//! by `all-schemes` (default). A scheme of your own needs no feature here: link its crate, and its
//! registration is found.
//!
//! ```no_run
//! use qoft::core::Schemes;
//! use qoft::models::{Architectures, CausalLm, ModelFolder};
//!
//! # fn main() -> qoft::core::Result<()> {
//! let folder = ModelFolder::open("SmolLM2-135M-nf4", &Architectures::linked()?)?;
//! let device = qoft::device("cpu")?;
//! let schemes = Schemes::linked(folder.checkpoint())?;
//! let model = CausalLm::load(&folder, &schemes, &device, &mut |_, _| ())?;
//! println!("{} layers", model.config().num_hidden_layers);
//! # Ok(())
//! # }
//! ```

mod adapted;
mod adapter;
mod ahead;
mod calibrate;
mod complete;
mod dequantize;
mod export;
mod inputs;
mod inspect;
mod layers;
mod merge;
mod model_dtype;
pub mod nn;
mod own;
mod owners;
mod quantize;
mod registries;
mod scale_search;
mod schemes;
mod search;
mod svd;
mod trainable;
mod vocabulary;
mod write;

pub use adapter::ScaledAdapter;
pub use calibrate::{Calibration, CalibrationOptions};
pub use dequantize::{DequantizeOptions, DequantizeReport, dequantize};
pub use export::{LoraLayer, LoraReport, export_lora};
pub use inspect::{Inspection, LayerReport, inspect};
pub use merge::{
    Change, KeptShares, KindSummary, MergeLosses, MergeOptions, MergePlan, MergeReport,
    MergeSample, MergeTarget, MergedLayer, NewScheme, OutputChange, StagedMerge, merge,
    merge_staged,
};
pub use qoft_calibrate::Hessian;
pub use qoft_core as core;
pub use qoft_core::{
    DEVICE_VARIABLE, DEVICES, DeviceFacts, OTHER_DEVICES, compute_dtype, default_device, device,
    devices,
};
pub use qoft_models as models;
pub use qoft_oft as oft;
pub use qoft_peft as peft;
pub use qoft_train as train;
pub use quantize::{
    QuantizeLosses, QuantizeOptions, QuantizeReport, QuantizedLayer, StagedQuantization,
    layers_to_quantize, quantize, quantize_layer, quantize_staged,
};
pub use registries::Registries;
pub use scale_search::scale_inputs;
pub use schemes::{SCHEMES, SchemeFeature, missing_feature, unknown_method};
pub use search::LayerSearch;
pub use trainable::check_trainable;
pub use vocabulary::{copy_small_files, with_tokens};
pub use write::{MaxShardSize, NewContainer};
pub use write::{copy_tokenizer, replace_tokenizer};

// Families of adapters. The linker drops crates that nobody names, and their registrations with them.
use qoft_boft as _;
use qoft_hra as _;
