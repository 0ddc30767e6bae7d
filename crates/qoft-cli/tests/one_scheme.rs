//! A build with GPTQ alone: it works, and says of everything else which feature is missing, and what it has.
#![cfg(all(feature = "gptq", not(feature = "all-schemes")))]

use std::process::{Command, Output};

fn qoft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(args)
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap()
}

fn fixture(name: &str) -> String {
    qoft_fixtures::path(name).to_str().unwrap().to_owned()
}

/// The run fails, and says which feature would help, and what there is.
#[track_caller]
fn lacks(args: &[&str], feature: &str) {
    let output = qoft(args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    let help = format!("lacks the scheme `{feature}`");
    assert!(text.contains(&help), "{args:?}: {text}");
    assert!(
        text.contains("It has gptq, and dense layers"),
        "{args:?}: {text}"
    );
}

#[test]
fn its_own_checkpoints_are_read() {
    let output = qoft(&["inspect", &fixture("schemes/gptq/int4_desc_act")]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("gptq"));
    let output = qoft(&["backends"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("not in this build (Cargo features): bnb, "),
        "{text}"
    );
}

#[test]
fn the_feature_for_another_checkpoint_is_named() {
    for scheme in std::fs::read_dir(qoft_fixtures::path("schemes")).unwrap() {
        let scheme = scheme.unwrap();
        let feature = scheme.file_name().into_string().unwrap();
        if feature == "gptq" {
            continue;
        }
        for folder in std::fs::read_dir(scheme.path()).unwrap() {
            let folder = folder.unwrap().path();
            // A pickle beside dense weights.
            if folder.is_dir() && !folder.ends_with("qmodel_pt") {
                lacks(&["inspect", folder.to_str().unwrap()], &feature);
            }
        }
    }
    lacks(&["inspect", &fixture("models/llama_nf4")], "bnb");
    lacks(&["inspect", &fixture("gguf/llama.gguf")], "gguf");
}

#[test]
fn every_command_names_the_feature() {
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let (out, rows, config) = (path("out"), path("rows.jsonl"), path("config.json"));
    std::fs::write(&rows, "{\"input_ids\": [6, 7, 8]}\n").unwrap();
    let (model, nf4) = (fixture("models/llama"), fixture("models/llama_nf4"));
    let adapter = fixture("adapters/dense_all_linear");
    let gguf = fixture("gguf/llama.gguf");
    // Models of another scheme.
    for model in [&nf4, &gguf] {
        let feature = if *model == gguf { "gguf" } else { "bnb" };
        for args in [
            &["inspect", model][..],
            &["eval", "--model", model, "--data", &rows],
            &["generate", "--model", model, "--prompt", "a"],
            &["train", "--model", model, "--data", &rows, "--output", &out],
            &["estimate", "--model", model, "--data", &rows],
            &["lr-find", "--model", model, "--data", &rows],
            &["chat", "--model", model],
            &["dequantize", "--model", model, "--output", &out],
            &[
                "merge",
                "--model",
                model,
                "--adapter",
                &adapter,
                "--output",
                &out,
            ],
            &[
                "export",
                "--to",
                "lora",
                "--rank",
                "4",
                "--model",
                model,
                "--adapter",
                &adapter,
                "--output",
                &out,
            ],
            &[
                "quantize",
                "--model",
                model,
                "--scheme",
                "gptq,group_size=32",
                "--output",
                &out,
            ],
        ] {
            // The other fixture has no tokenizer.
            if *model == gguf || !["generate", "chat"].contains(&args[0]) {
                lacks(args, feature);
            }
        }
    }
    // What a model is to become.
    let eval = ["eval", "--model", &model, "--data", &rows];
    lacks(&[&eval[..], &["--load-in-4bit"]].concat(), "bnb");
    lacks(&[&eval[..], &["--load-in-8bit"]].concat(), "bnb");
    lacks(&["quickstart", "--output", &out], "bnb");
    for (scheme, feature) in [
        ("bnb-4bit", "bnb"),
        ("eetq", "eetq"),
        ("awq,group_size=32", "awq"),
        ("hqq,nbits=4", "hqq"),
        ("inc-fp8", "inc-fp8"),
        ("fp8", "fp8"),
        ("compressed-tensors", "compressed-tensors"),
        ("mlx", "mlx"),
        ("modelopt", "modelopt"),
        ("mxfp4", "mxfp4"),
        ("torchao", "torchao"),
        ("aqlm", "aqlm"),
        ("gguf", "gguf"),
    ] {
        lacks(&[&eval[..], &["--load-in", scheme]].concat(), feature);
        lacks(
            &[
                "quantize", "--model", &model, "--scheme", scheme, "--output", &out,
            ],
            feature,
        );
        lacks(
            &[
                "merge",
                "--model",
                &model,
                "--adapter",
                &adapter,
                "--quantize",
                scheme,
                "--output",
                &out,
            ],
            feature,
        );
    }
    for (settings, feature) in [
        (
            r#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#,
            "bnb",
        ),
        (r#"{"quant_method": "fbgemm_fp8"}"#, "fp8"),
        (r#"{"quant_method": "hqq", "quant_config": {}}"#, "hqq"),
        (
            r#"{"quant_method": "compressed-tensors"}"#,
            "compressed-tensors",
        ),
        (
            r#"{"quant_method": "torchao", "quant_type": "int8_weight_only"}"#,
            "torchao",
        ),
    ] {
        std::fs::write(&config, settings).unwrap();
        lacks(
            &[&eval[..], &["--quantization-config", &config]].concat(),
            feature,
        );
    }
    // Settings that are known by their keys.
    std::fs::write(&config, r#"{"load_in_4bit": true}"#).unwrap();
    let output = qoft(&[&eval[..], &["--quantization-config", &config]].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("lacks bnb, "), "{text}");
    lacks(
        &[
            "export", "--to", "gguf", "--model", &model, "--output", &out,
        ],
        "gguf",
    );
    lacks(
        &[&eval[..], &["--backend-option", "eetq.layout=sm80"]].concat(),
        "eetq",
    );
    let mut left: Vec<String> = std::fs::read_dir(work.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["config.json", "rows.jsonl"]);
}

#[test]
#[cfg(not(feature = "serve"))]
fn the_feature_of_the_server_is_named() {
    let output = qoft(&["serve", "--model", &fixture("models/llama")]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("the Cargo feature `serve`"), "{text}");
}

#[test]
fn an_adapter_of_a_scheme_that_is_lacking_is_told() {
    let work = tempfile::tempdir().unwrap();
    let rows = work.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"input_ids\": [6, 7, 8]}\n").unwrap();
    let adapter = work.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let from = qoft_fixtures::path("adapters/dense_all_linear").join(file);
        std::fs::copy(from, adapter.join(file)).unwrap();
    }
    let run = r#"{"quantize": "hqq,nbits=4"}"#;
    std::fs::write(adapter.join("training_args.json"), run).unwrap();
    let (rows, adapter) = (rows.to_str().unwrap(), adapter.to_str().unwrap());
    let model = fixture("models/llama");
    let eval = [
        "eval",
        "--model",
        &model,
        "--data",
        rows,
        "--adapter",
        adapter,
    ];
    // Of these sizes GPTQ takes what is left.
    let gptq = [
        "--load-in",
        "gptq,group_size=32",
        "--quantize-skip",
        "lm_head,down_proj,gate_proj,up_proj,k_proj,v_proj",
    ];
    for (load, how) in [
        (&[][..], "which this one is not"),
        (&gptq, "in another way"),
    ] {
        let output = qoft(&[&eval[..], load].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains(how) && text.contains("--load-in hqq,nbits=4"),
            "{text}"
        );
    }
    lacks(&[&eval[..], &["--load-in", "hqq,nbits=4"]].concat(), "hqq");
}
