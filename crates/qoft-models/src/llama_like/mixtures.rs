//! Mixtures of experts in the layers of a model.

use std::collections::BTreeSet;

use qoft_core::Result;

use crate::decoder::{FeedForwardConfig, MixtureConfig, MlpConfig, RouterConfig, SigmoidScores};
use crate::json::Object;

/// What a model type has where `config.json` does not mention it.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
}

/// The router under the usual keys, whose weights add up to 1 or not; `None` if there are no experts.
pub fn router(
    json: Object,
    layers: usize,
    defaults: Defaults,
    normalized: bool,
) -> Result<Option<RouterConfig>> {
    // transformers takes one name for the other.
    let keys = ["n_routed_experts", "num_local_experts", "num_experts"];
    let key = keys
        .into_iter()
        .find(|key| json.has(key))
        .unwrap_or(keys[2]);
    let experts = match json.get::<usize>(key)? {
        Some(0) => return Ok(None),
        _ => json.size(key)?.unwrap_or(defaults.experts),
    };
    if experts > MOST_EXPERTS / layers.max(1) {
        let reason = format!("{experts} in {layers} layers are more than {MOST_EXPERTS}");
        return Err(json.error(key, reason));
    }
    let top_k = json.size("num_experts_per_tok")?.unwrap_or(defaults.top_k);
    if top_k > experts {
        let reason = format!("{top_k} is more than there are experts, {experts}");
        return Err(json.error("num_experts_per_tok", reason));
    }
    Ok(Some(RouterConfig::new(experts, top_k, normalized)))
}

/// The groups that the experts of a router are in, and how many of them count.
pub fn groups(json: Object, router: RouterConfig) -> Result<SigmoidScores> {
    let mut scores = SigmoidScores::PLAIN;
    scores.groups = json.size("n_group")?.unwrap_or(1);
    scores.top_groups = json.size("topk_group")?.unwrap_or(1);
    let experts = router.experts;
    if !experts.is_multiple_of(scores.groups) || experts / scores.groups < 2 {
        let reason = format!(
            "{experts} experts are no {} groups of 2 or more",
            scores.groups
        );
        return Err(json.error("n_group", reason));
    }
    let most = experts / scores.groups * scores.top_groups;
    if scores.top_groups > scores.groups || most < router.top_k {
        let reason = format!(
            "{} of {} groups do not have {} experts for a token",
            scores.top_groups, scores.groups, router.top_k
        );
        return Err(json.error("topk_group", reason));
    }
    Ok(scores)
}

/// More experts than any model has in all of its layers.
const MOST_EXPERTS: usize = 50_000;

/// Whether weights add up to 1, under the key that says it.
pub fn norm_topk_prob(json: Object) -> Result<bool> {
    json.flag("norm_topk_prob")
}

/// Mixtures in the layers that `decoder_sparse_step` and `mlp_only_layers` leave to them, and `dense` in the
/// others.
pub fn in_some_layers(
    json: Object,
    layers: usize,
    dense: MlpConfig,
    mixture: Option<MixtureConfig>,
) -> Result<Vec<FeedForwardConfig>> {
    let step = json.size("decoder_sparse_step")?.unwrap_or(1);
    let only: BTreeSet<usize> = json.get("mlp_only_layers")?.unwrap_or_default();
    let kind = |layer: usize| match &mixture {
        Some(mixture) if (layer + 1).is_multiple_of(step) && !only.contains(&layer) => {
            mixture.clone().into()
        }
        _ => dense.clone().into(),
    };
    Ok((0..layers).map(kind).collect())
}
