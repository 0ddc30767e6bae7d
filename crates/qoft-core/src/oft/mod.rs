//! PEFT's OFT: configuration and rotation.

mod config;
mod family;
mod inverse;
mod rotation;

pub use config::OftConfig;
pub use family::Oft;
pub use rotation::{OftRotation, RotationSettings, nearest_divisor};
