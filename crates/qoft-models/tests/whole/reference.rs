//! Losses and logits of transformers' models.

use std::fs;

use crate::common::{load_from, with_config};
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{LayerKind, Purpose, Schemes, Walk, default_device, trainable_parameters};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use serde_json::{Value, json};

const CASES: &[&str] = &[
    "cohere2",
    "cohere2_options",
    "exaone4",
    "exaone4_full",
    "exaone4_types",
    "gemma",
    "gemma2",
    "gemma2_options",
    "gemma3",
    "gemma3_named",
    "gemma3_text",
    "gemma4",
    "gemma4_text",
    "gemma4_text_options",
    "glm4",
    "glm4_moe",
    "glm4_moe_fused",
    "glm4_moe_options",
    "glm4_options",
    "gpt2",
    "gpt2_bare",
    "gpt2_options",
    "gpt2_silu",
    "gpt2_tanh",
    "gpt_oss",
    "gpt_oss_options",
    "granite",
    "granitemoehybrid",
    "granitemoehybrid_experts",
    "hunyuan",
    "hunyuan_options",
    "lfm2",
    "lfm2_options",
    "llama",
    "llama_bias",
    "llama_head_dim",
    "llama_rope_dynamic",
    "llama_rope_linear",
    "llama_rope_llama3",
    "llama_rope_yarn",
    "llama_rope_yarn_options",
    "llama_sharded",
    "ministral3",
    "ministral3_options",
    "mistral",
    "mistral3",
    "mistral3_llama",
    "mistral3_mistral",
    "mixtral",
    "mixtral_fused",
    "olmo2",
    "olmo3",
    "olmo3_options",
    "olmoe",
    "olmoe_options",
    "phi3",
    "phi3_partial",
    "phi3_partial_longrope",
    "qwen2",
    "qwen2_moe",
    "qwen2_moe_fused",
    "qwen2_moe_options",
    "qwen2_sliding",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_5_text_options",
    "qwen3_moe",
    "qwen3_moe_fused",
    "qwen3_moe_options",
    "seed_oss",
    "seed_oss_options",
    "smollm3",
    "starcoder2",
    "starcoder2_options",
];

fn ids(rows: &[Vec<i64>]) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(
        TensorData::new(rows.concat(), shape),
        &default_device().unwrap(),
    )
}

/// Rows padded on the right, the targets of all positions and how many of them count.
fn batch(rows: &[Vec<i64>]) -> (Tensor<2, Int>, Vec<Option<u32>>, f64) {
    let longest = rows.iter().map(Vec::len).max().unwrap();
    let mut targets = Vec::new();
    let mut padded = rows.to_vec();
    for row in &mut padded {
        targets.extend(row[1..].iter().map(|&id| Some(u32::try_from(id).unwrap())));
        targets.extend(vec![None; longest + 1 - row.len()]);
        row.resize(longest, 0);
    }
    let count = targets.iter().flatten().count() as f64;
    (ids(&padded), targets, count)
}

struct Expected {
    rows: Vec<Vec<i64>>,
    loss: f64,
    logits: Vec<f64>,
}

fn expected(case: &str) -> Expected {
    let path = qoft_fixtures::path(&format!("models/{case}/expected.json"));
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut take = |key: &str| json[key].take();
    Expected {
        rows: serde_json::from_value(take("rows")).unwrap(),
        loss: take("loss").as_f64().unwrap(),
        logits: serde_json::from_value(take("logits_row0_last")).unwrap(),
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

fn check(case: &str, model: &CausalLm) {
    let expected = expected(case);
    let (input, targets, count) = batch(&expected.rows);
    let loss = values(model.loss(input, targets, count))[0];
    let off = (loss - expected.loss).abs();
    assert!(
        off <= 1e-5 * expected.loss + 1e-5,
        "{case}: loss {loss}, {}",
        expected.loss
    );
    let logits = values(model.last_logits(ids(&expected.rows[..1]), None));
    let off = largest_difference(&logits, &expected.logits);
    assert!(off < 1e-4, "{case}: logits differ by {off}");
}

#[test]
fn losses_and_logits_equal_transformers() {
    for &case in CASES {
        check(
            case,
            &load_from(&qoft_fixtures::path(&format!("models/{case}"))).unwrap(),
        );
    }
}

#[test]
fn configurations_of_transformers_4_mean_the_same() {
    let mut found = 0;
    for &case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let Ok(legacy) = fs::read_to_string(folder.join("config_legacy.json")) else {
            continue;
        };
        let folder = with_config(case, |c| *c = serde_json::from_str(&legacy).unwrap());
        check(case, &load_from(folder.path()).unwrap());
        found += 1;
    }
    assert_eq!(found, 20);
}

/// A file of gpt-oss without rotary positions has those of its configuration class.
#[test]
fn positions_that_are_left_out_are_those_of_the_class() {
    let path = qoft_fixtures::path("models/gpt_oss/default_rope.json");
    let mut other: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let config = other["config"].take();
    let folder = with_config("gpt_oss", |c| *c = config);
    let model = load_from(folder.path()).unwrap();
    let (input, targets, count) = batch(&expected("gpt_oss").rows);
    let (found, loss) = (
        values(model.loss(input, targets, count))[0],
        other["loss"].as_f64().unwrap(),
    );
    assert!((found - loss).abs() <= 1e-5 * loss, "{found} {loss}");
}

#[test]
fn sizes_of_layers_are_told_in_two_ways() {
    let path = qoft_fixtures::path("models/gemma4_text/config_hub.json");
    let hub = fs::read_to_string(path).unwrap();
    let folder = with_config("gemma4_text", |c| *c = serde_json::from_str(&hub).unwrap());
    check("gemma4_text", &load_from(folder.path()).unwrap());
}

#[test]
fn a_cache_changes_nothing() {
    // Where frequencies depend on the length, cached keys differ, in transformers too.
    let grows = ["llama_rope_dynamic", "phi3_partial_longrope"];
    for case in CASES.iter().copied().filter(|case| !grows.contains(case)) {
        let model = load_from(&qoft_fixtures::path(&format!("models/{case}"))).unwrap();
        let row = expected(case).rows.swap_remove(0);
        let mut cache = model.new_cache();
        assert!(cache.is_empty());
        let mut at = 0;
        for tokens in [7, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1].into_iter().cycle() {
            let tokens = tokens.min(row.len() - at);
            if tokens == 0 {
                break;
            }
            let chunk = ids(&[row[at..at + tokens].to_vec()]);
            at += tokens;
            assert_eq!(cache.len() + tokens, at);
            let cached = values(model.last_logits(chunk, Some(&mut cache)));
            let full = values(model.last_logits(ids(&[row[..at].to_vec()]), None));
            let off = largest_difference(&cached, &full);
            assert!(off < 1e-4, "{case}: at {at} logits differ by {off}");
        }
        assert_eq!(at, row.len());
    }
}

/// Whether a tensor is no part of what reads pictures, or of a head that transformers does not have.
fn is_text(name: &&str) -> bool {
    let others = [
        "model.vision_tower.",
        "model.multi_modal_projector.",
        "model.visual.",
        "model.embed_vision.",
        "mtp.",
        // Of a layer that reads the keys of another one.
        "model.layers.5.self_attn.k_",
    ];
    !others.iter().any(|path| name.starts_with(path))
}

#[test]
fn layers_have_the_names_of_the_checkpoint() {
    for &case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load_from(&folder).unwrap();
        let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
        let checkpoint = folder.checkpoint();
        let linear = model.layers().into_iter();
        let linear = linear.filter(|(_, layer)| layer.kind() == LayerKind::Linear);
        let mut paths: Vec<String> = linear.map(|(path, _)| path).collect();
        assert_eq!(paths.pop().unwrap(), "lm_head");
        let is_linear = |name: &&str| {
            let others = ["embed_tokens", "wte", "wpe", "lm_head"];
            let matrix = checkpoint.get(name).unwrap().shape().len() == 2;
            matrix && !others.iter().any(|other| name.contains(other))
        };
        let stored = checkpoint.names().filter(is_text).filter(is_linear);
        let mut stored: Vec<&str> = stored.map(|n| n.strip_suffix(".weight").unwrap()).collect();
        stored.sort_unstable();
        paths.sort();
        assert_eq!(paths, stored, "{case}");
    }
}

#[test]
fn what_is_known_before_loading_is_what_there_is() {
    for &case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load_from(&folder).unwrap();
        let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        let spec = folder.spec().unwrap();
        let layers = model.layers();
        assert_eq!(layers.len(), spec.layers().len(), "{case}");
        for ((path, layer), known) in layers.iter().zip(spec.layers()) {
            assert_eq!((path, layer.kind()), (&known.path, known.kind), "{case}");
            assert_eq!(layer.base_weight().shape, known.shape, "{case}: {path}");
            assert_eq!(layer.is_tied(), known.tied_to.is_some(), "{case}: {path}");
            assert_eq!(spec.layer(path), Some(known));
            if known.kind == LayerKind::Linear && known.tied_to.is_none() {
                let source = known.source(folder.checkpoint());
                let loaded = schemes.load(source, Purpose::Forward);
                assert_eq!(loaded.unwrap().weight.shape(), known.shape);
            }
        }
        assert!(spec.layer("model.layers.9.mlp.up_proj").is_none());
    }
}

#[test]
fn tensors_that_are_read_are_the_models() {
    for &case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
        let (checkpoint, spec) = (folder.checkpoint(), folder.spec().unwrap());
        let names = checkpoint.names();
        let buffers = spec.names().buffers;
        let is_buffer = |name: &str| buffers.iter().any(|end| name.ends_with(end));
        let names = names.filter(|name| is_text(name) && !is_buffer(name));
        let foreign: Vec<&str> = names
            .filter(|name| !spec.is_made_from(checkpoint, name))
            .collect();
        assert!(foreign.is_empty(), "{case}: {foreign:?}");
    }
}

#[test]
fn parameters_are_counted_once() {
    for &case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load_from(&folder).unwrap();
        let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
        let (checkpoint, spec) = (folder.checkpoint(), folder.spec().unwrap());
        let is_mask = |name: &str| {
            [".attn.bias", ".masked_bias", ".e_score_correction_bias"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        // Tensors that are no layer's, such as sinks, are not counted.
        let is_a_layers = |name: &str| {
            let layer = name.rsplit_once('.').map(|(layer, _)| layer);
            layer.is_some_and(|layer| spec.layer(layer).is_some())
        };
        let stored = checkpoint
            .names()
            .filter(|name| is_text(name) && !is_mask(name) && is_a_layers(name));
        let stored = stored.map(|name| checkpoint.get(name).unwrap());
        let stored: usize = stored.map(|tensor| tensor.elements()).sum();
        let counted = trainable_parameters(&model);
        assert_eq!(counted, (0, stored), "{case}");
    }
}

#[test]
fn loading_reports_each_layer() {
    let folder = qoft_fixtures::path("models/smollm3");
    let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let mut seen = Vec::new();
    let mut progress = |done, total| seen.push((done, total));
    let device = default_device().unwrap();
    CausalLm::load(&folder, &schemes, &device, &mut progress).unwrap();
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
}

/// As in transformers 5, which ties a head only if the files have none with other values.
#[test]
fn a_stored_head_counts_although_the_configuration_ties_it() {
    let folder = with_config("mistral", |c| c["tie_word_embeddings"] = json!(true));
    let tied = load_from(folder.path()).unwrap();
    let own = load_from(&qoft_fixtures::path("models/mistral")).unwrap();
    let logits = |model: &CausalLm| values(model.last_logits(ids(&[vec![5, 6, 7]]), None));
    assert_eq!(largest_difference(&logits(&tied), &logits(&own)), 0.0);
    let head = tied.layers().pop().unwrap().1;
    assert!(!head.is_tied());
}

/// `attention_bias: false`, as in transformers, which gives the layers no bias then.
#[test]
fn biases_that_the_configuration_does_not_ask_for_are_not_read() {
    let folder = with_config("llama_bias", |c| {
        c["attention_bias"] = json!(false);
        c["mlp_bias"] = json!(false);
    });
    let model = load_from(folder.path()).unwrap();
    for (path, layer) in model.layers() {
        assert!(layer.tensors().iter().all(|t| t.name != "bias"), "{path}");
    }
}
