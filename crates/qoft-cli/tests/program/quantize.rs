//! Dense models that are quantized.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::{arg, fixture, good, json_of, names, qoft};

const NF4: [&str; 3] = ["--load-in-4bit", "--bnb-4bit-quant-type", "nf4"];

/// A dense model of the fixtures.
fn dense() -> String {
    fixture("quantize/llama_f32")
}

fn rows(folder: &Path) -> PathBuf {
    let row = |seed: u32| {
        let ids: Vec<u32> = (0..20).map(|i| (seed * 31 + i * i * 7) % 97).collect();
        json!({ "input_ids": ids }).to_string()
    };
    let path = folder.join("rows.jsonl");
    fs::write(&path, [row(1), row(2), row(3)].join("\n")).expect("a data file");
    path
}

#[track_caller]
fn loss(rows: &Path, more: &[&str]) -> f64 {
    let model = dense();
    let args = ["eval", "--model", &model, "--data", arg(rows)];
    json_of(&[&args, more].concat())["loss"]
        .as_f64()
        .expect("a loss")
}

#[test]
fn all_ways_to_ask_for_a_scheme_agree() {
    let work = tempdir().expect("a folder");
    let rows = rows(work.path());
    let config = work.path().join("config.json");
    let text =
        json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
    fs::write(&config, text.to_string()).expect("a file");
    let plain = loss(&rows, &[]);
    let flags = loss(&rows, &NF4);
    assert!((flags - plain).abs() > 1e-4, "{flags} {plain}");
    assert_eq!(flags, loss(&rows, &["--quantization-config", arg(&config)]));
    assert_eq!(
        flags,
        loss(&rows, &["--quantize", "bnb-4bit,bnb_4bit_quant_type=nf4"])
    );
    assert!(
        flags != loss(&rows, &["--load-in-4bit"]),
        "fp4 is the default"
    );
    let skipped = [&NF4[..], &["--quantize-skip", "model,lm_head.*"]].concat();
    let run = qoft(
        &[
            &["eval", "--model", &dense(), "--data", arg(&rows)],
            &skipped[..],
        ]
        .concat(),
    );
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("no linear layer is left"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_training_on_a_quantized_model_is_that_on_its_checkpoint() {
    let work = tempdir().expect("a folder");
    let (rows, model) = (rows(work.path()), dense());
    let cache = work.path().join("cache");
    let run = |output: &str, more: &[&str]| {
        let output = work.path().join(output);
        let args = [
            "train",
            "--model",
            &model,
            "--data",
            arg(&rows),
            "--output",
            arg(&output),
            "--target-modules",
            "all-linear",
            "--oft-block-size",
            "8",
            "--max-steps",
            "3",
        ];
        let cached = ["--quantize-cache", arg(&cache)];
        json_of(&[&args, &NF4[..], &cached, more].concat());
        output
    };
    let (first, second) = (run("first", &[]), run("second", &[]));
    assert_eq!(names(&cache).len(), 1);
    let bytes = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).expect("a file");
    assert_eq!(bytes(&first), bytes(&second));
    let text = fs::read_to_string(first.join("adapter_config.json")).expect("a file");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["base_model_name_or_path"], json!(model));
    // The adapter changes the quantized model, and merges into it.
    let with = [&NF4[..], &["--adapter", arg(&first)]].concat();
    assert!((loss(&rows, &with) - loss(&rows, &NF4)).abs() > 1e-5);
}

#[test]
fn packed_weights_that_were_damaged_are_made_anew() {
    let work = tempdir().expect("a folder");
    let (rows, model, cache) = (rows(work.path()), dense(), work.path().join("cache"));
    let args = ["eval", "--json", "--model", &model, "--data", arg(&rows)];
    let args = [&args, &NF4[..], &["--quantize-cache", arg(&cache)]].concat();
    let first = good(&args);
    let file = cache.join(&names(&cache)[0]);
    let whole = fs::read(&file).expect("a file");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("a length")) as usize;
    // In the header, in the body, and at its end.
    for at in [20, header + 40, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, damaged).expect("a file");
        let again = good(&args);
        assert_eq!(again.stdout, first.stdout, "{at}");
        let says = |part: &str| assert!(again.stderr.contains(part), "{at}: {}", again.stderr);
        says("is damaged");
        says("quantized anew");
        let next = good(&args);
        assert!(!next.stderr.contains("damaged"), "{}", next.stderr);
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let work = tempdir().expect("a folder");
    let (rows, model) = (rows(work.path()), dense());
    let fails = |more: &[&str], parts: &[&str]| {
        let args = ["eval", "--model", &model, "--data", arg(&rows)];
        let run = qoft(&[&args, more].concat());
        assert_eq!(run.code, Some(1), "{more:?}");
        for part in parts {
            assert!(run.stderr.contains(part), "{part:?}: {}", run.stderr);
        }
    };
    fails(&["--load-in-4bit", "--load-in-8bit"], &["more than one of"]);
    fails(
        &["--bnb-4bit-quant-type", "nf4"],
        &["--bnb-4bit-quant-type", "--load-in-4bit"],
    );
    fails(
        &["--load-in-8bit", "--bnb-4bit-quant-type", "nf4"],
        &["--bnb-4bit-quant-type needs --load-in-4bit"],
    );
    fails(
        &["--load-in-4bit", "--bnb-4bit-quant-type", "int4"],
        &["bnb_4bit_quant_type", "fp4 or nf4", "int4"],
    );
    fails(
        &["--quantize", "nf4"],
        &["no backend `nf4`", "bnb-4bit", "`--load-in-4bit` is meant"],
    );
    fails(&["--quantize", "hqq,nbits"], &["`nbits`: has no value"]);
    fails(
        &["--quantize", "hqq,nbits=4,nbits=3"],
        &["`nbits`: is given twice"],
    );
    fails(
        &["--quantize", "gptq,bits=four"],
        &["`bits`: expected a whole number of 0 or more, found \"four\""],
    );
    fails(
        &["--quantize", "bits=4"],
        &["expected SCHEME", "`bits=4`", "hqq"],
    );
    fails(&["--quantize", ""], &["expected SCHEME", "hqq"]);
    fails(&["--quantize", "dense"], &["`qoft dequantize`"]);
    fails(
        &["--quantize", "gptq,group_size=7"],
        &["GPTQModel loads a group_size of 16, 32", "found 7"],
    );
    fails(
        &["--load-in-4bit", "--bnb-4bit-compute-dtype", "half"],
        &["bnb_4bit_compute_dtype", "bfloat16", "half"],
    );
    fails(
        &["--quantize", "hqq,nbit=4"],
        &["`nbit`: no such setting", "`nbits` is meant"],
    );
    let all = ["eval", "--model", &model, "--data", arg(&rows)];
    let run = qoft(&[&all[..], &NF4, &["--quantize-skip", "lm_head,k_porj"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let warnings = run.stderr.matches("no module is called").count();
    assert_eq!(warnings, 1, "{}", run.stderr);
    assert!(run.stderr.contains("`k_porj`"), "{}", run.stderr);
    fails(&["--quantize", "aqlm"], &["`aqlm` cannot quantize", "hqq"]);
    fails(
        &["--load-in-4bit", "--quantize-dtype", "int8"],
        &["--quantize-dtype int8", "bfloat16"],
    );
    let quantized = fixture("models/llama_nf4");
    let run = qoft(&[
        "eval",
        "--model",
        &quantized,
        "--data",
        arg(&rows),
        "--load-in-4bit",
    ]);
    assert!(
        run.stderr.contains("quantized already (bnb-4bit)"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_folder_of_every_scheme_is_read_back() {
    let schemes = [
        "bnb-4bit,bnb_4bit_quant_type=nf4,bnb_4bit_use_double_quant=true",
        "bnb-8bit",
        "hqq,nbits=4,group_size=32",
        "hqq,nbits=3,group_size=64,axis=0",
        "gptq,bits=4,group_size=32",
        "gptq,bits=8,group_size=-1,sym=false,checkpoint_format=gptq_v2",
        "gptq,bits=4,group_size=32,desc_act=true",
        "awq,group_size=32",
        "awq,bits=4,group_size=32,symmetric=true",
        "fp8,strategy=tensor",
        "fp8,strategy=channel",
        "fp8,strategy=block,weight_block_size=[32,32]",
        "inc-fp8",
        "inc-fp8,fp8_config=E5M2,scale_method=maxabs_pow2",
        "compressed-tensors,num_bits=4,group_size=32,symmetric=false",
        "compressed-tensors,num_bits=8,strategy=channel",
        "compressed-tensors,num_bits=8,type=float,strategy=tensor",
        "compressed-tensors,num_bits=4,type=float,group_size=16",
        "mxfp4",
        "mlx,bits=4,group_size=32",
        "modelopt",
        "torchao,quant_type=int8_weight_only",
    ];
    let work = tempdir().expect("a folder");
    let (rows, model) = (rows(work.path()), dense());
    for (index, scheme) in schemes.into_iter().enumerate() {
        let output = work.path().join(index.to_string());
        let report = json_of(&[
            "quantize",
            "--model",
            &model,
            "--output",
            arg(&output),
            "--scheme",
            scheme,
            "--data",
            arg(&rows),
            "--report",
        ]);
        assert_eq!(report["layers"].as_array().unwrap().len(), 14, "{scheme}");
        let losses = &report["losses"];
        let quantized = losses["quantized"].as_f64().unwrap();
        assert_eq!(quantized, loss(&rows, &["--quantize", scheme]), "{scheme}");
        assert!((quantized - losses["dense"].as_f64().unwrap()).abs() < 0.5);
        let files = ["config.json", "model.safetensors", "quantize_report.json"];
        assert_eq!(names(&output), files, "{scheme}");
        let inspection = json_of(&["inspect", arg(&output)]);
        let is_named = !scheme.starts_with("inc-fp8") && !scheme.starts_with("mlx");
        assert_eq!(inspection["quant_method"].is_string(), is_named, "{scheme}");
        // What is quantized already is not quantized again.
        let again = qoft(&[
            "quantize",
            "--model",
            arg(&output),
            "--output",
            arg(&work.path().join("again")),
            "--load-in-4bit",
        ]);
        assert!(
            again.stderr.contains("quantized already"),
            "{}",
            again.stderr
        );
    }
}

#[test]
fn inputs_are_scaled_by_calibration_data_for_awq() {
    let work = tempdir().expect("a folder");
    let (rows, model) = (rows(work.path()), dense());
    let run = |name: &str, more: &[&str]| {
        let output = work.path().join(name);
        let args = ["quantize", "--model", &model, "--output", arg(&output)];
        let with = ["--scheme", "awq,group_size=32", "--data", arg(&rows)];
        let report = json_of(&[&args, &with[..], more].concat());
        (output, report["losses"].clone())
    };
    let (plain, _) = run("plain", &[]);
    let (scaled, losses) = run("scaled", &["--calibration", arg(&rows)]);
    let loss = |key: &str| losses[key].as_f64().expect("a loss");
    let off = (loss("quantized") - loss("dense")).abs();
    assert!(off > 0.0 && off < 0.1, "{losses}");
    // Norms took the factors over.
    let norm = "model.layers.0.input_layernorm.weight";
    let norm_of = |folder: &Path| {
        let bytes = fs::read(folder.join("model.safetensors")).expect("a file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        file.tensor(norm).expect("a norm").data().to_vec()
    };
    assert_eq!(norm_of(&plain), norm_of(Path::new(&model)));
    assert!(norm_of(&scaled) != norm_of(&plain));
}

#[test]
fn the_card_of_an_adapter_tells_how_its_model_was_quantized() {
    let work = tempdir().expect("a folder");
    let (rows, model, output) = (rows(work.path()), dense(), work.path().join("adapter"));
    let args = ["train", "--model", &model, "--data", arg(&rows)];
    let more = ["--output", arg(&output), "--max-steps=1"];
    good(&[&args[..], &more, &NF4].concat());
    let card = fs::read_to_string(output.join("README.md")).expect("a card");
    let command = "--load-in-4bit --bnb-4bit-quant-type nf4 --adapter FOLDER";
    assert!(card.contains(command), "{card}");
    let python = r#"BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))"#;
    assert!(card.contains(python), "{card}");
}

#[test]
fn settings_may_be_lists() {
    let work = tempdir().expect("a folder");
    let folder = |name: &str| arg(&work.path().join(name)).to_owned();
    let dense = dense();
    let quantized = |scheme: &str, output: &str| {
        let folder = folder(output);
        good(&[
            "quantize", "--model", &dense, "--output", &folder, "--scheme", scheme,
        ]);
        let config = fs::read_to_string(Path::new(&folder).join("config.json")).expect("a file");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        config["quantization_config"].clone()
    };
    let scheme = "mxfp4,modules_to_not_convert=[lm_head, q_proj,down_proj]";
    let config = quantized(scheme, "plain");
    let expected = json!(["lm_head", "q_proj", "down_proj"]);
    assert_eq!(config["modules_to_not_convert"], expected);
    let scheme = r#"torchao,quant_type={"default": {"_type": "Int8WeightOnlyConfig", "_data": {"granularity": {"_type": "PerGroup", "_data": {"group_size": 32}}}}},modules_to_not_convert=["lm_head"]"#;
    let config = quantized(scheme, "json");
    assert_eq!(config["modules_to_not_convert"], json!(["lm_head"]));
    let granularity = &config["quant_type"]["default"]["_data"]["granularity"];
    assert_eq!(granularity["_data"]["group_size"], 32);
}

#[test]
fn a_tied_head_is_among_the_modules_that_libraries_leave_dense() {
    let work = tempdir().expect("a folder");
    let model = fixture("quantize/llama_bf16");
    let mut number = 0;
    let mut config = |scheme: &str, more: &[&str]| {
        number += 1;
        let output = work.path().join(number.to_string());
        let args = ["quantize", "--model", &model, "--output", arg(&output)];
        good(&[&args[..], &["--scheme", scheme], more].concat());
        let text = fs::read_to_string(output.join("config.json")).expect("a file");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        config["quantization_config"].clone()
    };
    let int4 = "compressed-tensors,num_bits=4,type=int,group_size=32";
    assert_eq!(config(int4, &[])["ignore"], json!(["lm_head"]));
    let skipped = config(int4, &["--quantize-skip", "q_proj"]);
    assert_eq!(skipped["ignore"], json!(["q_proj", "lm_head"]));
    let skipped = config(int4, &["--quantize-skip", "lm_head,q_proj"]);
    assert_eq!(skipped["ignore"], json!(["lm_head", "q_proj"]));
    assert_eq!(config("modelopt", &[])["ignore"], json!(["lm_head"]));
    let inc = config("inc-fp8,scale_method=maxabs_pcs_pow2", &[]);
    assert_eq!(inc["blocklist"]["names"], json!(["lm_head"]));
    // Where the library's default means the same, it is no list.
    let nf4 = config("bnb-4bit", &[]);
    assert_eq!(nf4["llm_int8_skip_modules"], Value::Null);
}

#[test]
fn codes_that_are_stored_as_floats_are_no_numbers() {
    let work = tempdir().expect("a folder");
    let rows = rows(work.path());
    let at = |name: &str| work.path().join(name);
    let storage = |name: &str| format!("--bnb-4bit-quant-storage={name}");
    let (model, expected) = (dense(), loss(&rows, &NF4));
    for name in ["bfloat16", "float16", "float32"] {
        let storage = storage(name);
        let flags = [&NF4[..], &[&storage]].concat();
        let output = at(name);
        let args = ["quantize", "--model", &model, "--output", arg(&output)];
        good(&[&args[..], &flags].concat());
        let of = |folder: &Path| {
            let args = ["eval", "--model", arg(folder), "--data", arg(&rows)];
            json_of(&args)["loss"].as_f64().expect("a loss")
        };
        assert_eq!(of(&output), expected, "{name}");
        // An adapter of one kind of layer leaves the codes of the others as they are.
        let [adapter, merged] = ["adapter", "merged"].map(|kind| at(&format!("{kind}-{name}")));
        let train = [
            "train",
            "--model",
            arg(&output),
            "--data",
            arg(&rows),
            "--max-steps=1",
        ];
        let adapted = [
            "--target-modules=q_proj",
            "--oft-block-size=8",
            "--output",
            arg(&adapter),
        ];
        good(&[&train[..], &adapted].concat());
        let merge = ["merge", "--model", arg(&output), "--adapter", arg(&adapter)];
        good(&[&merge[..], &["--min-kept=0", "--output", arg(&merged)]].concat());
        assert!((of(&merged) - expected).abs() < 0.5, "{name}");
        // Some of the codes are no finite numbers.
        let cache = at("cache");
        let cached = [&flags[..], &["--quantize-cache", arg(&cache)]].concat();
        assert_eq!(loss(&rows, &cached), expected);
        assert_eq!(loss(&rows, &cached), expected);
    }
    assert_eq!(names(&at("cache")).len(), 3);
}
