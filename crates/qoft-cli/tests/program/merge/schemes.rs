//! Merging into a base that was quantized while it was loaded, and into other schemes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::{ADAPTER, NF4, data, json_of, loss, merge, near};
use crate::common::file::refused;
use crate::common::{arg, fixture, names, qoft};

const LOAD_NF4: [&str; 3] = ["--load-in-4bit", "--bnb-4bit-quant-type", "nf4"];
const ALL: [&str; 4] = ["--min-kept", "0", "--max-length", "64"];

/// A dense model, rows, and an adapter that was trained on it, quantized while it was loaded by
/// `load`.
struct Trained {
    work: TempDir,
    model: String,
    rows: PathBuf,
    adapter: PathBuf,
}

impl Trained {
    fn new(load: &[&str]) -> Self {
        let work = tempdir().expect("a folder");
        let model = fixture("quantize/llama_f32");
        let row = |seed: u32| {
            let ids: Vec<u32> = (0..24).map(|i| (seed * 31 + i * i * 7) % 97).collect();
            json!({ "input_ids": ids }).to_string()
        };
        let rows = work.path().join("rows.jsonl");
        fs::write(&rows, [row(1), row(2), row(3), row(4)].join("\n")).expect("a data file");
        let adapter = work.path().join("adapter");
        let args = [
            "train",
            "--model",
            &model,
            "--data",
            arg(&rows),
            "--output",
            arg(&adapter),
            "--target-modules",
            "all-linear",
            "--oft-block-size",
            "8",
            "--learning-rate",
            "0.02",
            "--max-steps",
            "5",
        ];
        json_of(&[&args, load].concat());
        Self {
            work,
            model,
            rows,
            adapter,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Runs a command with the adapter that writes the folder `name`.
    #[track_caller]
    fn merged(&self, model: &str, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let out = self.at(name);
        let args = ["merge", "--model", model, "--output", arg(&out)];
        let with = ["--adapter", arg(&self.adapter)];
        let report = json_of(&[&args, &with[..], &ALL, more].concat());
        (out, report)
    }

    #[track_caller]
    fn quantized(&self, model: &str, name: &str, more: &[&str]) -> PathBuf {
        let out = self.at(name);
        let args = ["quantize", "--model", model, "--output", arg(&out)];
        json_of(&[&args, more].concat());
        out
    }
}

/// The tensors of a folder's files: dtype, shape and bytes by name.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let shards = names(folder).into_iter();
    let shards = shards.filter(|name| name.ends_with(".safetensors"));
    let mut found = BTreeMap::new();
    for shard in shards {
        let bytes = fs::read(folder.join(shard)).expect("a file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        for (name, tensor) in file.tensors() {
            let about = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            let before = found.insert(name, (about, tensor.data().to_vec()));
            assert!(before.is_none(), "a tensor is there twice");
        }
    }
    found
}

/// Fails with the names of the tensors that differ.
#[track_caller]
fn same(a: &Path, b: &Path) {
    let (a, b) = (tensors(a), tensors(b));
    let names: Vec<_> = a.keys().chain(b.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
}

fn config(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("config.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// Which backend has which layer.
#[track_caller]
fn backends(folder: &Path) -> BTreeMap<String, String> {
    let inspection = json_of(&["inspect", arg(folder), "--all"]);
    let layers = inspection["layers"].as_array().expect("layers").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    layers
        .map(|layer| (text(&layer["name"]), text(&layer["backend"])))
        .collect()
}

#[test]
fn a_merge_into_a_base_quantized_at_load_is_that_into_its_checkpoint() {
    let case = Trained::new(&LOAD_NF4);
    let checkpoint = case.quantized(&case.model, "checkpoint", &LOAD_NF4);
    let (expected, _) = case.merged(arg(&checkpoint), "expected", &[]);
    let cache = case.at("cache");
    let cached = ["--quantize-cache", arg(&cache)];
    for name in ["first", "cached"] {
        let (found, report) = case.merged(&case.model, name, &[&LOAD_NF4[..], &cached].concat());
        same(&found, &expected);
        assert_eq!(config(&found), config(&expected));
        assert_eq!(report["quantized"], 14);
    }
    assert_eq!(names(&cache).len(), 1);
    // By the scheme's name, and with calibration data and losses.
    let named = ["--load-in", "bnb-4bit,bnb_4bit_quant_type=nf4"];
    let more = [
        "--calibration",
        arg(&case.rows),
        "--data",
        arg(&case.rows),
        "--report",
    ];
    let (found, report) = case.merged(&case.model, "named", &[&named[..], &more].concat());
    let base = [
        &["eval", "--model", &case.model, "--data", arg(&case.rows)],
        &LOAD_NF4[..],
    ];
    let base = [&base.concat()[..], &["--adapter", arg(&case.adapter)]].concat();
    let adapted = json_of(&base)["loss"].as_f64().expect("a loss");
    near(report["losses"]["adapted"].as_f64().unwrap(), adapted, 1e-9);
    assert!(
        report["kept"]["outputs"].as_f64().unwrap() > 0.7,
        "{}",
        report["kept"]
    );
    near(
        report["losses"]["merged"].as_f64().unwrap(),
        loss(arg(&found), &case.rows, &[]),
        1e-9,
    );
    // Dense weights compute what the adapted model does.
    let (dense, _) = case.merged(
        &case.model,
        "dense",
        &[&LOAD_NF4[..], &["--dequantize"]].concat(),
    );
    near(loss(arg(&dense), &case.rows, &[]), adapted, 2e-4);
}

#[test]
fn another_scheme_has_the_bytes_of_a_dense_merge_that_is_quantized() {
    let schemes = [
        "bnb-8bit",
        "bnb-4bit,bnb_4bit_quant_type=fp4,bnb_4bit_use_double_quant=true",
        "gptq,bits=8,group_size=32",
        "awq,group_size=32",
        "hqq,nbits=4,group_size=32",
    ];
    let case = Trained::new(&LOAD_NF4);
    for (base, load) in [("dense", &[][..]), ("nf4", &LOAD_NF4)] {
        let model = &case.model;
        let args = [load, &["--dequantize"]].concat();
        let (dense, _) = case.merged(model, &format!("{base}-dense"), &args);
        for (index, scheme) in schemes.iter().enumerate() {
            let name = format!("{base}-{index}");
            let expected = case.quantized(
                arg(&dense),
                &format!("{name}-expected"),
                &["--scheme", scheme],
            );
            let args = [load, &["--quantize", scheme]].concat();
            let (found, report) = case.merged(model, &name, &args);
            same(&found, &expected);
            assert_eq!(
                config(&found)["quantization_config"],
                config(&expected)["quantization_config"],
                "{base} {scheme}"
            );
            assert_eq!(report["quantized"], 14, "{base} {scheme}");
            assert_eq!(report["layers"].as_array().unwrap().len(), 14);
            let backend = scheme.split(',').next().unwrap();
            assert!(report["layers"][0]["backend"] == backend, "{base} {scheme}");
        }
    }
}

#[test]
fn a_quantized_checkpoint_is_written_in_a_finer_scheme() {
    let work = tempdir().expect("a folder");
    let rows = data(work.path(), "rows");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let more = ["--quantize", "bnb-8bit", "--data", arg(&rows), "--report"];
    let (out, report) = merge(&model, &[&adapter], work.path(), &more);
    let adapted = loss(&model, &rows, &[&adapter]);
    near(report["losses"]["adapted"].as_f64().unwrap(), adapted, 1e-9);
    near(report["losses"]["merged"].as_f64().unwrap(), adapted, 0.02);
    assert!(report["change_kept"].as_f64().unwrap() > 0.95);
    assert!(backends(&out).values().all(|backend| backend == "bnb-8bit"));
    let written = config(&out);
    assert_eq!(written["quantization_config"]["load_in_8bit"], true);
    assert!(names(&out).contains(&"merge_report.json".to_owned()));
    // Nothing of the old scheme is left.
    let left = tensors(&out).into_keys();
    let left: Vec<_> = left
        .filter(|name| name.contains("absmax") || name.contains("quant_"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn calibrated_codes_of_another_scheme_have_smaller_errors_of_outputs() {
    let case = Trained::new(&LOAD_NF4);
    let scheme = ["--quantize", "gptq,bits=4,group_size=32"];
    let nearest = [&LOAD_NF4[..], &scheme].concat();
    let calibrated = [&nearest[..], &["--calibration", arg(&case.rows)]].concat();
    let (plain, _) = case.merged(&case.model, "plain", &nearest);
    let (_, report) = case.merged(&case.model, "calibrated", &calibrated);
    assert!(
        report["kept"]["outputs"].as_f64().unwrap() > 0.9,
        "{}",
        report["kept"]
    );
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["searched"] == true));
    let (a, b) = (tensors(&plain), tensors(&case.at("calibrated")));
    let codes = |all: &BTreeMap<String, (String, Vec<u8>)>| {
        all["model.layers.0.mlp.up_proj.qweight"].1.clone()
    };
    assert!(codes(&a) != codes(&b));

    // The same without an adapter.
    let rows = ["--calibration", arg(&case.rows), "--data", arg(&case.rows)];
    let quantize = [
        "quantize",
        "--model",
        &case.model,
        "--scheme",
        scheme[1],
        "--report",
    ];
    let report = |name: &str, more: &[&str]| {
        let out = case.at(name);
        json_of(&[&quantize, &["--output", arg(&out)][..], more].concat())
    };
    let (plain, calibrated) = (report("q-plain", &rows[2..]), report("q-calibrated", &rows));
    let errors = |report: &Value, key: &str| -> Vec<Option<f64>> {
        let layers = report["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer[key].as_f64()).collect()
    };
    assert!(errors(&plain, "output_error").iter().all(Option::is_none));
    let weights = errors(&plain, "relative_error");
    let outputs = errors(&calibrated, "output_error");
    for (weights, outputs) in weights.iter().zip(outputs) {
        // Rounding to the nearest code makes an error of like size in both.
        assert!(
            outputs.unwrap() < 0.8 * weights.unwrap(),
            "{outputs:?} {weights:?}"
        );
    }
    let off = |report: &Value| {
        let loss = |key: &str| report["losses"][key].as_f64().unwrap();
        (loss("quantized") - loss("dense")).abs()
    };
    assert!(
        off(&calibrated) < off(&plain),
        "{} {}",
        off(&calibrated),
        off(&plain)
    );
}

#[test]
fn what_stays_dense_is_dense_in_the_result() {
    let case = Trained::new(&[]);
    let more = [
        "--quantize",
        "bnb-8bit",
        "--quantize-skip",
        "q_proj,lm_head",
    ];
    let (out, _) = case.merged(&case.model, "out", &more);
    for (layer, backend) in backends(&out) {
        let expected = match layer.ends_with("q_proj") || layer == "lm_head" {
            true => "dense",
            false => "bnb-8bit",
        };
        assert_eq!(backend, expected, "{layer}");
    }
    let skips = &config(&out)["quantization_config"]["llm_int8_skip_modules"];
    assert_eq!(*skips, json!(["q_proj", "lm_head"]));
    // Layers that are dense in a quantized base stay so, and the configuration says which.
    let mixed = case.quantized(
        &case.model,
        "mixed",
        &[
            "--load-in-4bit",
            "--quantize-skip",
            "layers.1.mlp.up_proj,lm_head",
        ],
    );
    let (out, _) = case.merged(arg(&mixed), "mixed-out", &["--quantize", "bnb-8bit"]);
    let found = backends(&out);
    assert_eq!(found["model.layers.1.mlp.up_proj"], "dense");
    assert_eq!(found["model.layers.0.mlp.up_proj"], "bnb-8bit");
    let skips = &config(&out)["quantization_config"]["llm_int8_skip_modules"];
    assert_eq!(*skips, json!(["model.layers.1.mlp.up_proj", "lm_head"]));
}

#[test]
fn shards_are_as_large_as_asked_for_and_are_read_again() {
    let case = Trained::new(&[]);
    let scheme = ["--scheme", "bnb-4bit"];
    let whole = case.quantized(&case.model, "whole", &scheme);
    let small = ["--max-shard-size", "30KB"];
    let sharded = case.quantized(&case.model, "sharded", &[&scheme[..], &small].concat());
    same(&whole, &sharded);
    let check = |folder: &Path| {
        let files = names(folder);
        let shards: Vec<_> = files
            .iter()
            .filter(|f| f.ends_with(".safetensors"))
            .collect();
        assert!(shards.len() > 2, "{files:?}");
        assert!(shards[0].starts_with("model-00001-of-0000"), "{files:?}");
        assert!(files.contains(&"model.safetensors.index.json".to_owned()));
        let text = fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_str(&text).expect("JSON");
        let map = index["weight_map"].as_object().expect("a map");
        assert_eq!(map.len(), tensors(folder).len());
        let bytes: usize = tensors(folder).values().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(index["metadata"]["total_size"], bytes);
    };
    check(&sharded);
    assert_eq!(
        loss(arg(&whole), &case.rows, &[]),
        loss(arg(&sharded), &case.rows, &[])
    );
    // In and out in shards.
    let dense = case.at("dense");
    let args = ["dequantize", &case.model, "--output", arg(&dense)];
    json_of(&[&args[..], &["--max-shard-size", "100KB"]].concat());
    check(&dense);
    let (from_whole, _) = case.merged(&case.model, "a", &["--quantize", "bnb-8bit"]);
    let more = [&["--quantize", "bnb-8bit"][..], &small].concat();
    let (from_shards, _) = case.merged(arg(&dense), "b", &more);
    check(&from_shards);
    same(&from_whole, &from_shards);
    let (same_scheme, _) = case.merged(arg(&sharded), "c", &small);
    check(&same_scheme);
    let (expected, _) = case.merged(arg(&whole), "d", &[]);
    same(&same_scheme, &expected);
}

#[test]
fn an_adapter_of_another_base_is_told() {
    let case = Trained::new(&LOAD_NF4);
    let told = |args: &[&str]| {
        let run = qoft(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        run.stderr
    };
    let needle = "was trained on a model that was quantized while it was loaded";
    let flags = "give: --load-in-4bit --bnb-4bit-quant-type nf4";
    let eval = ["eval", "--model", &case.model, "--data", arg(&case.rows)];
    let eval = [&eval[..], &["--adapter", arg(&case.adapter)]].concat();
    let text = told(&eval);
    assert!(text.contains(needle) && text.contains(flags), "{text}");
    assert!(text.contains("which this one is not"), "{text}");
    let text = told(&[&eval[..], &["--load-in-4bit"]].concat());
    assert!(
        text.contains("in another way") && text.contains(flags),
        "{text}"
    );
    for same in [
        &LOAD_NF4[..],
        &["--load-in", "bnb-4bit,bnb_4bit_quant_type=nf4"],
    ] {
        let text = told(&[&eval[..], same].concat());
        assert!(!text.contains(needle), "{text}");
    }
    // A model that is quantized already is the one, or it is not: its bytes say so.
    let checkpoint = case.quantized(&case.model, "checkpoint", &LOAD_NF4);
    let eval = [
        "eval",
        "--model",
        arg(&checkpoint),
        "--data",
        arg(&case.rows),
    ];
    let text = told(&[&eval[..], &["--adapter", arg(&case.adapter)]].concat());
    assert!(!text.contains(needle), "{text}");
    let out = case.at("out");
    let merge = [
        "merge",
        "--model",
        &case.model,
        "--adapter",
        arg(&case.adapter),
    ];
    let text = told(
        &[
            &merge[..],
            &["--output", arg(&out), "--quantize", "bnb-8bit"],
        ]
        .concat(),
    );
    assert!(text.contains(flags), "{text}");
}

#[test]
fn options_that_do_nothing_are_refused() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("out");
    let (model, adapter) = (
        fixture("models/llama"),
        fixture("adapters/dense_all_linear"),
    );
    let bad = |more: &[&str], needle: &str| {
        let args = ["merge", "--model", &model, "--adapter", &adapter];
        let args = [&args[..], &["--output", arg(&out)], more].concat();
        refused(&args, work.path(), needle);
    };
    let into = ["--quantize", "bnb-8bit"];
    bad(&[&into[..], &["--dequantize"]].concat(), "--dequantize");
    bad(&[&into[..], &["--dtype", "f16"]].concat(), "--dtype");
    bad(
        &[&into[..], &["--quantize-cache", "c"]].concat(),
        "--quantize-cache",
    );
    bad(
        &[&into[..], &["--bnb-4bit-quant-type", "nf4"]].concat(),
        "--bnb-4bit-quant-type",
    );
    bad(&["--quantize-skip", "q_proj"], "--quantize-skip");
    bad(&["--quantize-dtype", "float16"], "--quantize-dtype");
    bad(&["--quantize", "nf4"], "no backend `nf4`");
    bad(&["--quantize", "aqlm"], "`aqlm` cannot quantize");
    bad(
        &["--load-in", "bnb-8bit", "--load-in-4bit"],
        "more than one of",
    );
    bad(&["--max-shard-size", "many"], "--max-shard-size");
}
