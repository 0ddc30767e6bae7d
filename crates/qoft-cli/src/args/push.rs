//! Options of `push`.

use std::path::PathBuf;

use clap::Args;

/// Options of `push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The folder of an adapter or a model.
    pub folder: PathBuf,
    /// Its name on the Hub: OWNER/NAME, with @BRANCH if wanted. It is created if it is not there.
    pub name: String,
    /// Nobody else may see it, if it is created.
    #[arg(long)]
    pub private: bool,
    /// Message of the commit.
    #[arg(long, short, default_value = "Upload with qoft")]
    pub message: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}
