//! Losses and logits of transformers' models, and the errors of broken folders.

use std::fs;
use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{
    Error, LayerKind, Purpose, Result, Schemes, Walk, default_device, trainable_parameters,
};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use serde_json::{Value, json};

const CASES: [&str; 24] = [
    "gpt2",
    "gpt2_bare",
    "gpt2_options",
    "gpt2_silu",
    "gpt2_tanh",
    "granite",
    "llama",
    "llama_bias",
    "llama_head_dim",
    "llama_rope_dynamic",
    "llama_rope_linear",
    "llama_rope_llama3",
    "llama_rope_yarn",
    "llama_rope_yarn_options",
    "llama_sharded",
    "mistral",
    "olmo2",
    "phi3",
    "phi3_partial",
    "phi3_partial_longrope",
    "qwen2",
    "qwen2_sliding",
    "qwen3",
    "smollm3",
];

fn load(folder: &Path) -> Result<CausalLm> {
    let folder = ModelFolder::open(folder, &Architectures::linked()?)?;
    let schemes = Schemes::linked(folder.checkpoint())?;
    CausalLm::load(
        &folder,
        &schemes,
        &default_device().unwrap(),
        &mut |_, _| {},
    )
}

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

/// A copy of a fixture with another `config.json`.
fn with_config(case: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let source = qoft_fixtures::path(&format!("models/{case}"));
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    copy
}

fn message(case: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = with_config(case, change);
    load(folder.path()).unwrap_err().to_string()
}

#[test]
fn losses_and_logits_equal_transformers() {
    for case in CASES {
        check(
            case,
            &load(&qoft_fixtures::path(&format!("models/{case}"))).unwrap(),
        );
    }
}

#[test]
fn configurations_of_transformers_4_mean_the_same() {
    let mut found = 0;
    for case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let Ok(legacy) = fs::read_to_string(folder.join("config_legacy.json")) else {
            continue;
        };
        let folder = with_config(case, |c| *c = serde_json::from_str(&legacy).unwrap());
        check(case, &load(folder.path()).unwrap());
        found += 1;
    }
    assert_eq!(found, 8);
}

#[test]
fn a_cache_changes_nothing() {
    // Where frequencies depend on the length, cached keys differ, in transformers too.
    let grows = ["llama_rope_dynamic", "phi3_partial_longrope"];
    for case in CASES.into_iter().filter(|case| !grows.contains(case)) {
        let model = load(&qoft_fixtures::path(&format!("models/{case}"))).unwrap();
        let row = expected(case).rows.swap_remove(0);
        let mut cache = model.new_cache();
        assert!(cache.is_empty());
        let mut at = 0;
        for tokens in [7, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1] {
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

#[test]
fn layers_have_the_names_of_the_checkpoint() {
    for case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load(&folder).unwrap();
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
        let stored = checkpoint.names().filter(is_linear);
        let mut stored: Vec<&str> = stored.map(|n| n.strip_suffix(".weight").unwrap()).collect();
        stored.sort_unstable();
        paths.sort();
        assert_eq!(paths, stored, "{case}");
    }
}

#[test]
fn what_is_known_before_loading_is_what_there_is() {
    for case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load(&folder).unwrap();
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
fn parameters_are_counted_once() {
    for case in CASES {
        let folder = qoft_fixtures::path(&format!("models/{case}"));
        let model = load(&folder).unwrap();
        let folder = ModelFolder::open(&folder, &Architectures::linked().unwrap()).unwrap();
        let checkpoint = folder.checkpoint();
        let stored = checkpoint.names().map(|n| checkpoint.get(n).unwrap());
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

#[test]
fn unsupported_configurations_are_named() {
    let cases: [(&str, &str, Value, &str); 19] = [
        ("llama", "model_type", json!("mamba"), "`mamba`"),
        ("llama", "model_type", Value::Null, "is missing"),
        ("llama", "hidden_act", json!("gelu"), "`gelu`"),
        ("llama", "hidden_size", json!("wide"), "invalid type"),
        ("llama", "hidden_size", json!(0), "must lie in"),
        ("llama", "vocab_size", Value::Null, "is missing"),
        ("llama", "num_key_value_heads", json!(3), "does not divide"),
        ("llama", "head_dim", json!(7), "even number"),
        (
            "llama",
            "num_hidden_layers",
            json!(2_000_000_000),
            "more than",
        ),
        ("llama", "rms_norm_eps", json!(-1), "positive"),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention"]),
            "1 entries",
        ),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "linear_attention"]),
            "`linear_attention`",
        ),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "use_sliding_window",
        ),
        ("smollm3", "no_rope_layers", json!([1]), "1 entries"),
        ("gpt2", "n_embd", json!(30), "no multiple of 4 heads"),
        ("gpt2", "n_layer", json!(2_000_000_000), "more than"),
        ("gpt2", "n_positions", Value::Null, "is missing"),
        ("gpt2", "activation_function", json!("mish"), "`mish`"),
        ("gpt2", "add_cross_attention", json!(true), "encoder"),
    ];
    for (case, key, value, reason) in cases {
        let message = message(case, |config| config[key] = value);
        assert!(message.contains("config.json"), "{message}");
        assert!(message.contains(&format!("`{key}`")), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn unsupported_rotary_positions_are_named() {
    let cases = [
        (json!({"rope_type": "spiral"}), "rope_type", "`spiral`"),
        (json!({"rope_type": "linear"}), "factor", "is missing"),
        (
            json!({"rope_type": "linear", "factor": 0}),
            "factor",
            "positive",
        ),
        (
            json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            "short_factor",
            "4 positive numbers",
        ),
        (
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
            "not supported",
        ),
        (
            json!({"full_attention": {"rope_type": "default"}}),
            "full_attention",
            "layer type",
        ),
    ];
    for (rope, key, reason) in cases {
        let message = message("llama", |config| config["rope_parameters"] = rope);
        let named = format!("`rope_parameters.{key}`");
        assert!(message.contains(&named), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn tensors_that_are_missing_or_do_not_fit_are_named() {
    let missing = |case: &str, key: &str, value: Value, name: &str| {
        let folder = with_config(case, |config| config[key] = value);
        match load(folder.path()).unwrap_err() {
            Error::MissingTensor { tensor, .. } => assert_eq!(tensor, name),
            other => panic!("{other}"),
        }
    };
    let layer = "model.layers.2.self_attn.q_proj.weight";
    missing("llama", "num_hidden_layers", json!(3), layer);
    let bias = "model.layers.0.self_attn.q_proj.bias";
    missing("llama", "attention_bias", json!(true), bias);
    let bias = "model.layers.0.mlp.gate_proj.bias";
    missing("llama", "mlp_bias", json!(true), bias);
    let head = "lm_head.weight";
    missing("llama", "tie_word_embeddings", json!(false), head);
    let bias = "model.layers.0.self_attn.q_proj.bias";
    missing("llama", "model_type", json!("qwen2"), bias);

    let wrong = message("llama", |config| config["vocab_size"] = json!(65));
    assert!(wrong.contains("`model.embed_tokens.weight`"), "{wrong}");
    assert!(wrong.contains("[65, 32]") && wrong.contains("[64, 32]"));
    let wrong = message("llama", |config| config["intermediate_size"] = json!(41));
    assert!(wrong.contains("`model.layers.0.mlp.gate_proj`"), "{wrong}");
    assert!(wrong.contains("[41, 32]") && wrong.contains("[40, 32]"));
    let layer = "transformer.h.2.ln_1.weight";
    missing("gpt2_bare", "n_layer", json!(3), layer);
    let head = "lm_head.weight";
    missing("gpt2", "tie_word_embeddings", json!(false), head);

    let wrong = message("gpt2", |config| config["n_positions"] = json!(33));
    assert!(wrong.contains("`transformer.wpe.weight`"), "{wrong}");
    let wrong = message("gpt2", |config| config["n_inner"] = json!(41));
    assert!(wrong.contains("`transformer.h.0.mlp.c_fc`"), "{wrong}");
    assert!(
        wrong.contains("[41, 32]") && wrong.contains("[40, 32]"),
        "{wrong}"
    );
    let wrong = message("qwen3", |config| config["head_dim"] = json!(14));
    assert!(wrong.contains("self_attn.q_proj"), "{wrong}");
}

/// As in transformers 5, which ties a head only if the files have none with other values.
#[test]
fn a_stored_head_counts_although_the_configuration_ties_it() {
    let folder = with_config("mistral", |c| c["tie_word_embeddings"] = json!(true));
    let tied = load(folder.path()).unwrap();
    let own = load(&qoft_fixtures::path("models/mistral")).unwrap();
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
    let model = load(folder.path()).unwrap();
    for (path, layer) in model.layers() {
        assert!(layer.tensors().iter().all(|t| t.name != "bias"), "{path}");
    }
}
