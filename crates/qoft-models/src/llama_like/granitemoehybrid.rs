//! `granitemoehybrid` without Mamba layers: granite with feed-forward layers under other names, and perhaps
//! mixtures of experts beside them.

use qoft_core::Result;

use super::granite::multipliers;
use super::{LayerOptions, LlamaLike, attention_biases, mixtures};
use crate::decoder::{
    FeedForwardConfig, FeedForwardName, MixtureConfig, MlpConfig, MlpInput, MlpNames, RouterName,
    SharedConfig,
};
use crate::json::Object;
use crate::layer_types;
use crate::registry::ArchitectureRegistration;

static GRANITEMOEHYBRID: LlamaLike = LlamaLike {
    biases: attention_biases,
    layers,
    feed_forward,
    feed_forward_name: FeedForwardName::SharedMlp,
    multipliers,
    ..LlamaLike::new(&["granitemoehybrid"])
};

static REGISTRATION: ArchitectureRegistration = ArchitectureRegistration::new(&GRANITEMOEHYBRID);

crate::register_architecture!(REGISTRATION);

/// What files call the layers that all tokens meet.
const SHARED: MlpNames = MlpNames {
    gate_up_proj: "input_linear",
    down_proj: "output_linear",
    ..MlpNames::USUAL
};

/// Attention in all layers; positions if `position_embedding_type` asks for them.
fn layers(json: Object, layers: usize) -> Result<Vec<LayerOptions>> {
    let known = [
        ("attention", true),
        ("full_attention", true),
        ("mamba", false),
        ("linear_attention", false),
    ];
    if layer_types::kinds(json, layers, &known, |_| false)?.contains(&false) {
        let reason = "Mamba layers are not supported, only models whose layers are all `attention`";
        return Err(json.error("layer_types", reason));
    }
    let positions: Option<String> = json.get("position_embedding_type")?;
    let layer = LayerOptions {
        window: None,
        rope: positions.as_deref() == Some("rope"),
    };
    Ok(vec![layer; layers])
}

fn feed_forward(json: Object, layers: usize, dense: MlpConfig) -> Result<Vec<FeedForwardConfig>> {
    let shared = MlpConfig {
        input: MlpInput::GatedFused,
        names: SHARED,
        inner: json.size("shared_intermediate_size")?.unwrap_or(1024),
        ..dense.clone()
    };
    let defaults = mixtures::Defaults {
        experts: 8,
        top_k: 2,
    };
    let Some(router) = mixtures::router(json, layers, defaults, true)? else {
        return Ok(vec![shared.into(); layers]);
    };
    let mut mixture = MixtureConfig::new([dense.inner, dense.hidden], router);
    mixture.router_name = RouterName::Router;
    mixture.experts.together = true;
    mixture.shared = Some(SharedConfig::Beside(shared));
    mixture.module = "block_sparse_moe";
    mixture.older_names = &[
        ("input_linear.weight", "experts.gate_up_proj"),
        ("output_linear.weight", "experts.down_proj"),
        ("router.layer", "router"),
    ];
    Ok(vec![mixture.into(); layers])
}
