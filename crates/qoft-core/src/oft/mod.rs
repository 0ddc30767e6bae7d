//! PEFT's OFT: configuration, targets, rotation and adapter folders.

mod attach;
mod config;
mod folder;
mod inverse;
mod rotation;
mod targets;

pub use crate::peft::{Trained, trained};
pub use attach::{attach, attach_folder, load, save};
pub use config::{Layers, OftConfig, OneOrMany};
pub use folder::AdapterFolder;
pub use rotation::{OftRotation, RotationSettings, nearest_divisor};
pub use targets::{TargetRules, Targets, default_targets};
