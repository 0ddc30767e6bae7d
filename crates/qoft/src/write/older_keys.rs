//! Keys of `config.json` that programs read which are older than the ones it has.
//!
//! Transformers 5 writes rotary positions as `rope_parameters`. Transformers 4, mlx-lm and others know
//! `rope_theta`, `rope_scaling` and `partial_rotary_factor` only, and compute with their defaults where these
//! are missing, without a word. Transformers 5 reads both, and what they say is the same.

use serde_json::{Map, Value};

/// The key of transformers 5.
const PARAMETERS: &str = "rope_parameters";
/// Ways to scale positions that transformers 4 has; models with another one came after it.
const KINDS: [&str; 6] = ["default", "linear", "dynamic", "yarn", "llama3", "longrope"];
/// Keys that stood beside `rope_scaling`, and never in it.
const BESIDE: [&str; 2] = ["rope_theta", "partial_rotary_factor"];
/// Kinds of layers that have positions of their own, and the key of the older base of each.
const LAYERS: [(&str, &str); 2] = [
    ("full_attention", "rope_theta"),
    ("sliding_attention", "rope_local_base_freq"),
];

/// The configuration with the older keys beside the new ones, also in its parts. Keys that are there stay.
pub fn with_older_keys(mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        add(config);
    }
    config
}

fn add(config: &mut Map<String, Value>) {
    for (_, part) in config.iter_mut().filter(|(key, _)| *key != PARAMETERS) {
        if let Some(part) = part.as_object_mut() {
            add(part);
        }
    }
    if let Some(older) = config.get(PARAMETERS).and_then(older) {
        for (key, value) in older {
            let slot = config.entry(key).or_insert(Value::Null);
            if slot.is_null() {
                *slot = value;
            }
        }
    }
}

/// What the older keys are, unless older programs lack such models.
fn older(parameters: &Value) -> Option<Vec<(String, Value)>> {
    let parameters = parameters.as_object()?;
    if !parameters.values().any(Value::is_object) {
        return of_layers(parameters);
    }
    // Kinds of layers other than these came later, and so did scaled positions of layers with a window.
    let is_known = |key: &String| LAYERS.iter().any(|(layers, _)| layers == key);
    if !parameters.keys().all(is_known) {
        return None;
    }
    let mut older = Vec::new();
    for (layers, base) in LAYERS {
        let own = parameters.get(layers)?.as_object()?;
        let is_full = base == BESIDE[0];
        for (key, value) in of_layers(own)? {
            match key.as_str() {
                "rope_theta" => older.push((base.to_owned(), value)),
                _ if is_full => older.push((key, value)),
                _ => return None,
            }
        }
    }
    Some(older)
}

/// The keys for an object of one kind of layers.
fn of_layers(parameters: &Map<String, Value>) -> Option<Vec<(String, Value)>> {
    let kind = ["rope_type", "type"]
        .iter()
        .find_map(|key| parameters.get(*key)?.as_str());
    let kind = kind.unwrap_or("default");
    if !KINDS.contains(&kind) {
        return None;
    }
    let beside = BESIDE.iter().filter_map(|key| {
        let value = parameters.get(*key).filter(|value| !value.is_null())?;
        Some(((*key).to_owned(), value.clone()))
    });
    let mut older: Vec<_> = beside.collect();
    if kind != "default" {
        let mut scaling = parameters.clone();
        for key in BESIDE {
            scaling.shift_remove(key);
        }
        older.push(("rope_scaling".to_owned(), scaling.into()));
    }
    Some(older)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The keys that were added.
    fn added(config: Value) -> Value {
        let mut all = with_older_keys(config.clone());
        for (key, value) in config.as_object().expect("an object") {
            if all[key] == *value {
                all.as_object_mut().expect("an object").shift_remove(key);
            }
        }
        all
    }

    #[test]
    fn bases_and_shares_stand_beside_the_parameters() {
        let rope = json!({"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5});
        assert_eq!(
            added(json!({"rope_parameters": rope, "rope_scaling": null})),
            json!({"rope_theta": 1e5, "partial_rotary_factor": 0.5})
        );
        // Nothing is known of what is not there.
        assert_eq!(
            added(json!({"rope_parameters": {"rope_type": "default"}})),
            json!({})
        );
        assert_eq!(
            added(json!({"rope_parameters": null, "a": {"b": 1}})),
            json!({})
        );
    }

    #[test]
    fn scaled_positions_are_a_key_of_their_own() {
        let rope = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0});
        assert_eq!(
            added(json!({"text_config": {"rope_parameters": rope}})),
            json!({"text_config": {
                "rope_parameters": rope,
                "rope_theta": 5e5,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
            }})
        );
    }

    #[test]
    fn what_is_there_stays() {
        let rope = json!({"rope_type": "linear", "rope_theta": 5e5, "factor": 8.0});
        let config =
            json!({"rope_parameters": rope, "rope_theta": 1e4, "rope_scaling": {"type": "linear"}});
        assert_eq!(added(config), json!({}));
    }

    #[test]
    fn layers_with_a_window_have_a_base_of_their_own() {
        let full = json!({"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0});
        let window = json!({"rope_type": "default", "rope_theta": 1e4});
        assert_eq!(
            added(
                json!({"rope_parameters": {"full_attention": full, "sliding_attention": window}})
            ),
            json!({
                "rope_theta": 1e6,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "rope_local_base_freq": 1e4,
            })
        );
    }

    #[test]
    fn models_stay_what_they_are() {
        let architectures = qoft_models::Architectures::linked().expect("architectures");
        let mut changed = 0;
        for folder in qoft_fixtures::folders("models") {
            let text = std::fs::read(folder.join("config.json")).expect("a configuration");
            let config: Value = serde_json::from_slice(&text).expect("JSON");
            let with = with_older_keys(config.clone());
            changed += usize::from(with != config);
            let describe = |config: &Value| format!("{:?}", architectures.describe(config));
            assert_eq!(describe(&with), describe(&config), "{}", folder.display());
        }
        assert!(changed > 50, "{changed}");
    }

    #[test]
    fn models_that_are_younger_have_no_older_keys() {
        let rope = json!({"rope_type": "proportional", "rope_theta": 1e6});
        assert_eq!(added(json!({"rope_parameters": rope})), json!({}));
        let plain = json!({"rope_type": "default", "rope_theta": 1e4});
        let rope = json!({"full_attention": rope, "sliding_attention": plain});
        assert_eq!(added(json!({"rope_parameters": rope})), json!({}));
        let rope = json!({"full_attention": plain, "sliding_attention": plain, "other": plain});
        assert_eq!(added(json!({"rope_parameters": rope})), json!({}));
    }
}
