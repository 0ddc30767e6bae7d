//! The training loop, with the semantics of transformers' `Trainer`.
//!
//! A [`Trainer`] takes a model with attached adapters through the steps of a [`TrainConfig`] and
//! writes into its output folder:
//!
//! - `log.jsonl`: a row for each step and each evaluation;
//! - `loss.svg`: the curve of the losses;
//! - `checkpoint-N/`: an adapter folder with what is needed to resume after step N;
//! - `adapter_config.json` and `adapter_model.safetensors`: the trained adapter.

mod config;
mod gradients;
mod log;
mod observer;
mod optimizer;
mod plan;
mod plot;
mod schedule;
mod state;
mod trainer;

pub use config::{ActivationDtype, OptimizerKind, TrainConfig};
pub use observer::{Observer, StepReport};
pub use schedule::{Schedule, SchedulerKind};
pub use trainer::{Summary, Trainer};

/// The name of the adapter that is trained and saved.
pub const ADAPTER: &str = "default";
