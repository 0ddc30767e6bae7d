//! Merging into a base that was quantized while it was loaded, and into other schemes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

use super::trained::{LOAD_NF4, Trained, backends, config, same, tensors};
use super::{ADAPTER, NF4, data, loss, merge, near};
use crate::common::json_of;
use crate::common::{arg, fixture, names, qoft};

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
fn a_calibrated_merge_says_that_it_scales_no_inputs() {
    let case = Trained::new(&LOAD_NF4);
    for (scheme, said) in [("awq,group_size=32", true), ("gptq,group_size=32", false)] {
        let output = case.at(&scheme[..3]);
        let args = ["merge", "--model", &case.model, "--output", arg(&output)];
        let adapter = ["--adapter", arg(&case.adapter), "--quantize", scheme];
        let args = [
            &args[..],
            &adapter,
            &LOAD_NF4,
            &["--calibration", arg(&case.rows)],
        ];
        let run = qoft(&args.concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(run.stderr.contains("qoft quantize --scheme awq"), said);
    }
}
