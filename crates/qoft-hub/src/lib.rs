//! Models, adapters and data sets of the Hugging Face Hub: named by [`HubName`], fetched into the cache
//! that Python's `huggingface_hub` shares, and pushed back.
//!
//! ```no_run
//! use qoft_hub::{Content, Hub, HubName};
//!
//! # fn main() -> Result<(), qoft_hub::HubError> {
//! let hub = Hub::from_env()?;
//! let name = HubName::parse("HuggingFaceTB/SmolLM2-135M").expect("a name");
//! let folder = hub.fetch(&name, Content::Model, &mut qoft_hub::Silent)?;
//! # Ok(())
//! # }
//! ```

mod choose;
mod client;
mod download;
mod environment;
mod error;
mod fetch;
mod name;
mod push;
mod transfer;

pub use environment::Hub;
pub use error::HubError;
pub use fetch::Content;
pub use name::HubName;
pub use push::Pushed;
pub use transfer::{Silent, Transfer};
