//! The layers as `config.json` describes them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;
use serde_json::{Map, Value};

use super::attention::{AttentionConfig, Sharing};
use super::block::BlockConfig;
use crate::config::ModelConfig;
use crate::decoder::{MlpConfig, RopeConfig, RopeDefaults, RopeTables};
use crate::json::Object;
use crate::layer_types;
use crate::norm::NormConfig;

/// All blocks; `per_layer` is the width of what tokens add in each of them.
pub fn read(
    json: Object,
    model: &ModelConfig,
    norm: NormConfig,
    activation: Activation,
    per_layer: Option<usize>,
) -> Result<Vec<BlockConfig>> {
    let layers = model.num_hidden_layers;
    let sliding = sliding(json, layers)?;
    let sharing = sharing(json, &sliding, usize::from(per_layer.is_some()))?;
    let sizes = sizes(json, &sliding)?;
    let heads = json.require_size("num_attention_heads")?;
    let window = json.require_size("sliding_window")?;
    let inner = json.require_size("intermediate_size")?;
    let double = json.flag("use_double_wide_mlp")?;
    let (bias, same) = (json.flag("attention_bias")?, json.flag("attention_k_eq_v")?);
    let mut ropes: BTreeMap<(bool, usize), Arc<RopeTables>> = BTreeMap::new();
    let mut blocks = Vec::new();
    for (number, &sliding) in sliding.iter().enumerate() {
        let Sizes { head_dim, kv_heads } = sizes[number];
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} does not divide {heads} heads");
            return Err(json.error("num_key_value_heads", reason));
        }
        let rope = match ropes.entry((sliding, head_dim)) {
            Entry::Occupied(made) => made.get().clone(),
            Entry::Vacant(place) => place.insert(rope(json, model, sliding, head_dim)?).clone(),
        };
        let reads = matches!(sharing[number], Sharing::Reads(_));
        let inner = if double && reads { 2 * inner } else { inner };
        let mut mlp = MlpConfig::new([inner, model.hidden_size]);
        mlp.activation = activation;
        blocks.push(BlockConfig {
            attention: AttentionConfig {
                hidden: model.hidden_size,
                heads,
                kv_heads,
                head_dim,
                bias,
                keys_are_values: same && !sliding,
                sharing: sharing[number],
                window: sliding.then_some(window),
                rope,
                norm,
            },
            mlp,
            norm,
            per_layer: per_layer.map(|width| [number, width]),
        });
    }
    Ok(blocks)
}

/// Whether each layer sees a window only: all but every sixth one, and never the last one.
fn sliding(json: Object, layers: usize) -> Result<Vec<bool>> {
    let mut sliding = layer_types::sliding(json, layers, |layer| !(layer + 1).is_multiple_of(6))?;
    if let Some(last) = sliding.last_mut() {
        *last = false;
    }
    Ok(sliding)
}

/// Where the keys and values of each layer come from. The last layers read those of the last layer of their
/// kind before them; `first` tensors are carried before these.
fn sharing(json: Object, sliding: &[bool], first: usize) -> Result<Vec<Sharing>> {
    let key = "num_kv_shared_layers";
    let shared = json.get::<usize>(key)?.unwrap_or(0);
    let mut sharing = vec![Sharing::Own; sliding.len()];
    if shared == 0 {
        return Ok(sharing);
    }
    let own = sliding.len().saturating_sub(shared);
    let (before, behind) = sliding.split_at(own);
    let last = |kind: bool| before.iter().rposition(|&sliding| sliding == kind);
    let givers = [last(false), last(true)];
    for (number, &kind) in behind.iter().enumerate() {
        let Some(giver) = givers[usize::from(kind)] else {
            let reason =
                format!("no layer before the last {shared} is of the kind of all of these");
            return Err(json.error(key, reason));
        };
        sharing[giver] = Sharing::HandsOn;
        let other = givers[usize::from(!kind)];
        // Of two that hand on, the earlier one is carried first.
        let other_is_read = behind.contains(&!kind);
        let place = usize::from(other_is_read && other.is_some_and(|other| other < giver));
        sharing[own + number] = Sharing::Reads(first + 2 * place);
    }
    Ok(sharing)
}

/// Sizes that differ between layers.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    head_dim: usize,
    kv_heads: usize,
}

/// The sizes of each layer: as transformers writes them, for some layers by their number, or as other
/// files have them, for all that see everything.
fn sizes(json: Object, sliding: &[bool]) -> Result<Vec<Sizes>> {
    let usual = Sizes {
        head_dim: json.require_size("head_dim")?,
        kv_heads: json.require_size("num_key_value_heads")?,
    };
    let mut sizes = vec![usual; sliding.len()];
    if json.has("per_layer_config") {
        let own: Option<BTreeMap<usize, Map<String, Value>>> = json.get("per_layer_config")?;
        for (number, own) in own.unwrap_or_default() {
            let wrong = |reason: &str| {
                let reason = format!("layer {number}: {reason}");
                json.error("per_layer_config", reason)
            };
            let size = sizes
                .get_mut(number)
                .ok_or_else(|| wrong("there is none"))?;
            for (key, value) in own {
                let value = value
                    .as_u64()
                    .filter(|&value| (1..=LARGEST).contains(&value));
                let value = value.ok_or_else(|| wrong(&format!("{key} is no size")))? as usize;
                match key.as_str() {
                    "head_dim" => size.head_dim = value,
                    "num_key_value_heads" => size.kv_heads = value,
                    _ => return Err(wrong(&format!("{key} for a single layer is not supported"))),
                }
            }
        }
        return Ok(sizes);
    }
    let head_dim = json.size("global_head_dim")?.unwrap_or(512);
    let kv_heads = match json.flag("attention_k_eq_v")? {
        true => json.size("num_global_key_value_heads")?,
        false => None,
    };
    for (size, _) in sizes
        .iter_mut()
        .zip(sliding)
        .filter(|(_, sliding)| !**sliding)
    {
        size.head_dim = head_dim;
        size.kv_heads = kv_heads.unwrap_or(size.kv_heads);
    }
    Ok(sizes)
}

/// More than any model has.
const LARGEST: u64 = 1 << 24;

fn rope(
    json: Object,
    model: &ModelConfig,
    sliding: bool,
    head_dim: usize,
) -> Result<Arc<RopeTables>> {
    let layer_type = match sliding {
        true => "sliding_attention",
        false => "full_attention",
    };
    let all = json.object("rope_parameters", "rope_parameters.")?;
    let own = all.map(|all| all.object(layer_type, "rope_parameters."));
    if own.transpose()?.flatten().is_none() {
        let reason = format!("has nothing for `{layer_type}`");
        return Err(json.error("rope_parameters", reason));
    }
    let defaults = RopeDefaults {
        layer_type: Some(layer_type),
        theta_key: None,
        scaled: false,
        ..RopeDefaults::USUAL
    };
    let rope = RopeConfig::read(json, &defaults, head_dim, model.max_position_embeddings)?;
    Ok(Arc::new(RopeTables::new(rope)))
}
