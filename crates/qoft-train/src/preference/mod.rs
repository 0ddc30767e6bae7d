//! Learning from preferences: which of two answers is better, or whether an answer is good.
//!
//! The losses are those of TRL's trainers. Where they compare with a reference model, that is the model
//! without the adapter that trains: the base, with the adapters below, if there are any. It shares all
//! weights with the model.

mod batch;
mod config;
mod data;
mod dual;
mod loss_type;
mod model;
mod objective;
mod pair_losses;
mod stage;
mod whole_losses;

pub use batch::PreferenceBatch;
pub use config::PreferenceConfig;
pub use data::PreferenceData;
pub use loss_type::LossType;
pub use model::PreferenceModel;
pub use stage::Stage;
