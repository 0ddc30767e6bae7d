//! Layers of other schemes, made up with their tensors' names, dtypes and shapes.

use std::collections::BTreeMap;

use qoft_core::{BackendOptions, Dtype, LayerSource, Registry};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::layer::only_name;
use crate::layer_file::{FileTensor, LayerFile};

/// What layers look like in the checkpoints that the schemes' own libraries have written: one in each
/// line. The test `foreign` of the crate `qoft` writes it.
const KNOWN: &str = include_str!("foreign.jsonl");

/// A layer of a scheme that nobody reads.
const OF_NOBODY: &str = r#"{"backend": "bitnet", "config": {"quant_method": "bitnet"},
    "tensors": {"weight": ["U8", [8, 64]], "weight_scale": ["BF16", [1]]}}"#;

/// What a layer looks like.
#[derive(Deserialize)]
struct Outline {
    /// The backend whose layer it is.
    backend: String,
    /// The quantization's configuration, if there is one.
    config: Value,
    /// Dtypes and shapes of its tensors.
    tensors: BTreeMap<String, (Dtype, Vec<usize>)>,
}

/// The backend claims none of the others' layers but those that it replaces.
pub(crate) fn check(registry: &Registry, replaced: &[String]) {
    const PATH: &str = "model.layers.0.self_attn.q_proj";
    let own = only_name(registry);
    for text in KNOWN.lines().chain([OF_NOBODY]) {
        let outline: Outline = serde_json::from_str(text).expect("an outline");
        let name = outline.backend;
        if name == own || replaced.contains(&name) {
            continue;
        }
        let tensors = outline.tensors.iter();
        let tensors = tensors.map(|(suffix, (dtype, shape))| FileTensor {
            name: format!("{PATH}.{suffix}"),
            dtype: *dtype,
            shape: shape.clone(),
            bytes: vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8],
        });
        let file = LayerFile {
            path: PATH.into(),
            config: json!({ "quantization_config": outline.config }),
            metadata: BTreeMap::new(),
            tensors: tensors.collect(),
        };
        let claimed = file.with(|checkpoint| {
            let schemes = registry.open(checkpoint, &BackendOptions::default());
            let schemes = schemes.unwrap_or_else(|e| panic!("a checkpoint of {name}: {e}"));
            let layer = LayerSource::new(checkpoint, PATH, None);
            schemes.claim(layer).is_some()
        });
        assert_eq!(
            claimed,
            Some(false),
            "{own} claims a layer of {name}: {text}"
        );
    }
}
