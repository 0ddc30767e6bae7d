//! PEFT's OFT: configuration, targets, rotation and adapter folders.

mod config;
mod folder;
mod rotation;
mod targets;

pub use config::{Layers, OftConfig, OneOrMany};
pub use folder::{AdapterFolder, attach, attach_folder, load, save, trained};
pub use rotation::{OftRotation, RotationSettings, nearest_divisor};
pub use targets::{Targets, default_targets};
