//! The training loop, with the semantics of transformers' `Trainer`.
//!
//! A [`Trainer`] takes a model with attached adapters through the steps of a [`TrainConfig`] and
//! writes into its output folder:
//!
//! - `log.jsonl`: a row for each step and each evaluation;
//! - `loss.svg`: the curve of the losses;
//! - `runs/`: event files of TensorBoard, if a [`TensorBoard`] follows it;
//! - `checkpoint-N/`: an adapter folder with what is needed to resume after step N;
//! - `adapter_config.json` and `adapter_model.safetensors`: the trained adapter;
//! - `adapters_below.json`: the adapters that it was trained on top of, if any;
//! - `emergency-N/`: the adapter after step N, if the run failed after that.

mod accumulation;
mod agreement;
mod below;
mod best;
mod chart;
mod checkpoint;
mod config;
mod digest;
mod diverged;
mod folder;
mod gradients;
mod history;
mod interval;
mod log;
mod moments;
mod muon;
mod names;
mod observer;
mod occasions;
mod optimizer;
mod optimizer_kind;
mod plan;
mod plot;
mod rate_search;
mod rescue;
mod run;
mod saving;
mod schedule;
mod schedule_free;
mod scheduler_kind;
mod scheduler_options;
mod start;
mod state;
mod strategy;
mod tensorboard;
mod trainer;
mod workload;

pub use below::Below;
pub use config::{ActivationDtype, TrainConfig};
pub use digest::Digest;
pub use folder::{RunFolder, earlier_checkpoints, is_checkpoint, is_emergency, last_checkpoint};
pub use history::{History, HistoryEvaluation, HistoryStep};
pub use interval::Interval;
pub use observer::{Observer, StepReport};
pub use optimizer_kind::OptimizerKind;
pub use rate_search::{FoundRate, RateSearch};
pub use schedule::Schedule;
pub use scheduler_kind::SchedulerKind;
pub use scheduler_options::{Curve, SchedulerOptions};
pub use state::batches_of_step;
pub use strategy::Strategy;
pub use tensorboard::TensorBoard;
pub use trainer::{Start, Summary, Trainer};
pub use workload::Workload;

/// The name of the adapter that is trained and saved.
pub const ADAPTER: &str = "default";
