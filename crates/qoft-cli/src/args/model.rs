//! Options about the model that a command loads.

use std::ops::Deref;

use anyhow::Result;
use clap::Args;

use super::{AdapterArg, LoadArgs, ModelPlace};

/// Which model to load, and how.
#[derive(Debug, Clone, Args)]
pub struct BaseArgs {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelPlace,
    /// Where to compute [default: the environment variable QOFT_DEVICE, or cpu]
    #[arg(long)]
    pub device: Option<String>,
    /// Dtype in which products with frozen weights are computed: `f32`, `bf16`, or `auto` for bf16 where the
    /// device multiplies it faster. Sums and all else stay in f32 [default: f32].
    #[arg(long, value_name = "DTYPE")]
    pub compute_dtype: Option<String>,
    /// An option of a backend, such as `bnb-8bit.int8_activations=true`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Vec<String>,
    /// Quantize a dense model by a scheme and its settings, such as
    /// `hqq,nbits=4,group_size=64`; `qoft backends` lists those that can.
    #[arg(long, visible_alias = "load-in", value_name = "SCHEME[,KEY=VALUE…]")]
    pub quantize: Option<String>,
    /// How a dense model is quantized.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// A model with adapters.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The model.
    #[command(flatten)]
    pub base: BaseArgs,
    /// An adapter folder, with a strength other than 1 if wanted; several are applied one after
    /// another.
    #[arg(long, value_name = "PATH[=STRENGTH]", value_parser = AdapterArg::parser())]
    pub adapter: Vec<AdapterArg>,
}

impl BaseArgs {
    /// Puts a folder here in place of a name on the Hub.
    pub fn locate(&mut self) -> Result<()> {
        self.model.locate()
    }
}

impl ModelArgs {
    /// Puts folders here in place of names on the Hub.
    pub fn locate(&mut self) -> Result<()> {
        self.base.locate()?;
        self.adapter.iter_mut().try_for_each(AdapterArg::locate)
    }
}

impl Deref for ModelArgs {
    type Target = BaseArgs;

    fn deref(&self) -> &BaseArgs {
        &self.base
    }
}
