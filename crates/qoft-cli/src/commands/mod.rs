//! The commands, one in each file.

pub mod backends;
pub mod chat;
pub mod dequantize;
pub mod devices;
pub mod estimate;
pub mod eval;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod lr_find;
pub mod merge;
pub mod preview;
pub mod push;
pub mod quantize;
pub mod quickstart;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shell;
pub mod train;
