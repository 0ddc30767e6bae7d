//! Merges that are refused, and that nothing is written then.

use std::fs;

use tempfile::tempdir;

use super::{ADAPTER, NF4};
use crate::common::file::refused;
use crate::common::{arg, fixture, names};
use crate::common::{good, json_of};

#[test]
fn bad_merges() {
    let work = tempdir().expect("a folder");
    let (model, adapter) = (fixture(NF4), fixture(ADAPTER));
    let out = work.path().join("out");
    let bad = |model: &str, adapter: &str, more: &[&str], needle: &str| {
        let args = ["merge", "--model", model, "--output", arg(&out)];
        let args = [&args[..], &["--adapter", adapter], more].concat();
        refused(&args, work.path(), needle);
    };
    for strength in ["", "much", "nan", "inf"] {
        bad(&model, &format!("{adapter}={strength}"), &[], "--adapter");
    }
    bad(&model, "/nowhere=0.5", &[], "/nowhere");
    bad(&model, &adapter, &["--dtype=f16"], "--dequantize");
    for share in ["-0.1", "1.5", "nan", "much"] {
        bad(
            &model,
            &adapter,
            &[&format!("--min-kept={share}")],
            "--min-kept",
        );
    }
    bad(
        &model,
        &adapter,
        &["--data=/nowhere.jsonl"],
        "/nowhere.jsonl",
    );
    bad(&model, &adapter, &["--backend-option=x.y=1"], "x.y");
    // An adapter of a model with other sizes, and one of a model with other layers.
    let other = fixture("models/llama");
    let tensor = "base_model.model.model.layers";
    bad(&other, &adapter, &["--dequantize"], tensor);
    bad(&fixture("models/phi3"), &adapter, &[], tensor);
    fs::create_dir(&out).expect("a folder");
    fs::write(out.join("mine"), "text").expect("a file");
    bad(&model, &adapter, &[], arg(&out));
    assert_eq!(names(&out), ["mine"]);
}

#[test]
fn a_scheme_that_cannot_be_written_is_refused_before_anything_is_done() {
    let backends = json_of(&["backends"]);
    let folders = [
        "aqlm",
        "awq",
        "compressed-tensors",
        "eetq",
        "fp8",
        "gptq",
        "hqq",
        "inc-fp8",
    ];
    for backend in backends["backends"].as_array().expect("backends") {
        let name = backend["name"].as_str().expect("a name");
        if backend["capabilities"]["requantize"] == true || !folders.contains(&name) {
            continue;
        }
        let models = qoft_fixtures::folders(&format!("schemes/{name}"));
        let model = models
            .into_iter()
            .find(|model| model.join("trained").is_dir());
        let Some(model) = model else { continue };
        let work = tempdir().expect("a folder");
        let (adapter, out) = (model.join("trained"), work.path().join("out"));
        let args = ["merge", "--model", arg(&model), "--output", arg(&out)];
        let args = [&args[..], &["--adapter", arg(&adapter)]].concat();
        for needle in ["model.layers.0.", &format!("({name})"), "--dequantize"] {
            refused(&args, work.path(), needle);
        }
        good(&[&args[..], &["--dequantize"]].concat());
    }
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
    let nf4 = "`bnb-4bit,bnb_4bit_quant_type=nf4` is meant";
    bad(&["--quantize", "nf4"], nf4);
    bad(&["--quantize", "aqlm"], "`aqlm` cannot quantize");
    bad(&["--quantize", "gguf"], "`qoft export --to gguf`");
    bad(
        &["--load-in", "bnb-8bit", "--load-in-4bit"],
        "more than one of",
    );
    bad(&["--max-shard-size", "many"], "--max-shard-size");
}
