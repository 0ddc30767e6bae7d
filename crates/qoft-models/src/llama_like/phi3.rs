//! `phi3`: fused projections, partial rotary positions.

use super::{LlamaLike, windows};
use crate::config::ModelNames;
use crate::decoder::{MlpInput, Projections, RopeDefaults};
use crate::registry::ArchitectureRegistration;

static PHI3: LlamaLike = LlamaLike {
    names: ModelNames::USUAL.with_targets(&["qkv_proj"]),
    padding: Some(32_000),
    eps: 1e-5,
    projections: Projections::Fused,
    mlp_input: MlpInput::GatedFused,
    rope: RopeDefaults {
        partial_rotary_factor: Some(1.0),
        original_positions: Some(4096),
        // The first checkpoints call it so.
        longrope_names: &["su", "yarn"],
        ..RopeDefaults::USUAL
    },
    layers: |json, layers| windows::everywhere(json, None, layers),
    positions: 4_096,
    ..LlamaLike::new(&["phi3"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&PHI3);

crate::register_architecture!(REGISTRATION);
