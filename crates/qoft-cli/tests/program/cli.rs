//! The commands on good input: what they print and write.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, copy_fixture, fixture, good, names, qoft};
use serde_json::{Value, json};
use tempfile::tempdir;

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";
const TOKENIZER: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// Runs a command that has to print one JSON object and nothing else on stdout.
#[track_caller]
fn json_of(args: &[&str]) -> Value {
    let run = good(args);
    let value: Value = serde_json::from_str(&run.stdout).expect("stdout is one JSON value");
    assert!(value.is_object(), "{value}");
    value
}

#[track_caller]
fn loss(model: &str, more: &[&str]) -> f64 {
    let rows = fixture(ROWS);
    let args = ["eval", "--json", "--model", model, "--data", &rows];
    let value = json_of(&[&args, more].concat());
    assert!(value["tokens"].as_u64().is_some_and(|n| n > 0), "{value}");
    let loss = value["loss"].as_f64().expect("a loss");
    let perplexity = value["perplexity"].as_f64().expect("a perplexity");
    assert!((perplexity / loss.exp() - 1.0).abs() < 1e-9, "{value}");
    loss
}

#[track_caller]
fn same(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5, "{a} is not {b}");
}

/// A copy of a model with a tokenizer beside it.
fn model_with_tokenizer(model: &str, to: &Path) -> PathBuf {
    let model = copy_fixture(model, to, "model");
    for name in TOKENIZER {
        let from = qoft_fixtures::path("tokenizer").join(name);
        fs::copy(from, model.join(name)).expect("a copied file");
    }
    model
}

#[test]
fn inspect_lists_every_layer() {
    for (model, backend, bits, group) in [
        (MODEL, "bnb-4bit", 4, Value::from(64)),
        ("models/llama_int8", "bnb-8bit", 8, Value::Null),
    ] {
        let value = json_of(&["inspect", "--json", &fixture(model)]);
        assert_eq!(value["model_type"], "llama");
        assert_eq!(value["quant_method"], "bitsandbytes");
        let layers = value["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 14);
        for layer in layers {
            assert_eq!(layer["backend"], backend, "{layer}");
            assert_eq!(layer["bits"], bits, "{layer}");
            assert_eq!(layer["group_size"], group, "{layer}");
            let [inputs, outputs, bytes] = ["in_features", "out_features", "packed_bytes"]
                .map(|key| layer[key].as_u64().expect(key));
            assert!(bytes >= inputs * outputs * bits / 8, "{layer}");
        }
        let down = &layers[0];
        assert_eq!(down["name"], "model.layers.0.mlp.down_proj");
        assert_eq!(down["in_features"], 192);
        assert_eq!(down["out_features"], 64);
    }
}

#[test]
fn inspect_prints_a_table() {
    let run = good(&["inspect", &fixture(MODEL)]);
    assert!(run.stdout.contains("model.layers.*.self_attn.q_proj"));
    assert!(run.stdout.contains("14 bnb-4bit"));
    assert!(!run.stdout.contains("not supported"));
    let all = good(&["inspect", "--all", &fixture(MODEL)]);
    assert!(all.stdout.contains("model.layers.1.self_attn.q_proj"));
    assert_eq!(all.stdout.lines().count() - run.stdout.lines().count(), 7);
    let work = tempdir().expect("a folder");
    let folder = copy_fixture(MODEL, work.path(), "model");
    crate::common::file::edit_json(&folder.join("config.json"), |config| {
        config["model_type"] = "mystery".into();
    });
    let run = good(&["inspect", arg(&folder)]);
    assert!(run.stdout.contains("not supported:"), "{}", run.stdout);
    assert!(run.stdout.contains("mystery"), "{}", run.stdout);
}

#[test]
fn inspect_reads_shards() {
    let value = json_of(&["inspect", "--json", &fixture("models/llama_sharded")]);
    let layers = value["layers"].as_array().expect("layers");
    assert!(layers.len() >= 14);
    assert!(layers.iter().all(|layer| layer["backend"] == "dense"));
}

#[test]
fn backends_are_listed() {
    let value = json_of(&["backends", "--json"]);
    let backends = value["backends"].as_array().expect("backends");
    for name in ["bnb-4bit", "bnb-8bit", "dense"] {
        let backend = backends.iter().find(|b| b["name"] == name).expect(name);
        assert_eq!(backend["capabilities"]["train"], true);
        assert_eq!(backend["capabilities"]["dequantize"], true);
    }
    let formats = value["file_formats"].as_array().expect("file formats");
    assert_eq!(formats[0]["name"], "gguf");
    assert_eq!(formats[0]["tier"], "standard");
    let table = good(&["backends"]).stdout;
    assert!(
        table.contains("file formats: safetensors, gguf\n"),
        "{table}"
    );
    let row = |name: &str| -> Vec<&str> {
        let mut lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.find(|words| words[0] == name).expect(name)
    };
    assert_eq!(row("backend")[2..6], ["read", "train", "merge", "quantize"]);
    assert_eq!(row("bnb-4bit")[2..6], ["yes"; 4]);
    assert_eq!(row("aqlm")[2..6], ["yes", "yes", "yes", "no"]);
    assert_eq!(row("dense")[2..6], ["yes", "yes", "yes", "no"]);
}

#[test]
fn dequantize_keeps_the_loss() {
    for name in [MODEL, "models/llama_int8"] {
        let work = tempdir().expect("a folder");
        let model = model_with_tokenizer(name, work.path());
        let out = work.path().join("dense");
        let args = ["dequantize", arg(&model), "--output", arg(&out), "--json"];
        assert_eq!(json_of(&args)["layers"], 14);

        let inspection = json_of(&["inspect", "--json", arg(&out)]);
        assert_eq!(inspection["quant_method"], Value::Null);
        let layers = inspection["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 14);
        assert!(layers.iter().all(|layer| layer["backend"] == "dense"));
        same(loss(arg(&model), &[]), loss(arg(&out), &[]));
        for name in TOKENIZER {
            let [from, to] = [&model, &out].map(|folder| fs::read(folder.join(name)).ok());
            assert!(to.is_some() && from == to, "{name}");
        }

        let before = names(&out);
        let again = qoft(&args);
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains(arg(&out)), "{}", again.stderr);
        assert_eq!(names(&out), before);
        assert_eq!(names(work.path()), ["dense", "model"]);
    }
}

#[test]
fn train_writes_an_adapter() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("adapter");
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let summary = json_of(&[
        "train",
        "--json",
        "--model",
        &model,
        "--data",
        &rows,
        "--output",
        arg(&out),
        "--max-steps",
        "3",
        "--learning-rate",
        "1e-2",
    ]);
    assert_eq!(summary["steps"], 3);
    assert_eq!(summary["interrupted"], false);
    assert_eq!(
        names(&out),
        [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "log.jsonl",
            "loss.svg",
            "report.html",
            "training_args.json"
        ]
    );
    let log = fs::read_to_string(out.join("log.jsonl")).expect("a log");
    let log: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert_eq!(log.len(), 3);
    for (index, row) in log.iter().enumerate() {
        assert_eq!(row["step"], index + 1);
        for key in [
            "loss",
            "learning_rate",
            "grad_norm",
            "seconds",
            "tokens_per_second",
        ] {
            assert!(row[key].is_number(), "{key}: {row}");
        }
    }
    let svg = fs::read_to_string(out.join("loss.svg")).expect("a curve");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));

    let config = fs::read(out.join("adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["peft_type"], "OFT");
    assert_eq!(config["oft_block_size"], 32);

    let adapted = loss(&model, &["--adapter", arg(&out)]);
    assert!((adapted - loss(&model, &[])).abs() > 1e-4, "{adapted}");
}

#[test]
fn eval_agrees_with_peft() {
    let expected = fs::read(qoft_fixtures::path("adapters/expected.json")).expect("the losses");
    let expected: Value = serde_json::from_slice(&expected).expect("JSON");
    let work = tempdir().expect("a folder");
    let data = work.path().join("rows.jsonl");
    let rows: Vec<String> = expected["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|ids| json!({"input_ids": ids}).to_string())
        .collect();
    fs::write(&data, rows.join("\n")).expect("a data file");
    let model = fixture(MODEL);
    let eval = ["eval", "--json", "--model", &model, "--data", arg(&data)];
    let loss = |value: &Value| value["loss"].as_f64().expect("a loss");
    let base = loss(&json_of(&eval));
    same(base, loss(&expected["base"]["llama_nf4"]));
    for case in ["all_linear", "cayley"] {
        let adapter = fixture(&format!("adapters/{case}"));
        let adapted = json_of(&[&eval[..], &["--adapter", &adapter]].concat());
        same(loss(&adapted), loss(&expected["cases"][case]));
    }
}

#[test]
fn flags_win_over_the_config_file() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("adapter");
    let yaml = work.path().join("run.yaml");
    let text = format!(
        "model: {}\ndata: {}\noutput: {}\nmax_steps: 5\noft_block_size: 16\n",
        fixture(MODEL),
        fixture(ROWS),
        out.display()
    );
    fs::write(&yaml, &text).expect("a config file");
    let summary = json_of(&["train", "--config", arg(&yaml), "--max-steps=2", "--json"]);
    assert_eq!(summary["steps"], 2);
    let config = fs::read(out.join("adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["oft_block_size"], 16);

    fs::write(&yaml, text + "max_stepz: 7\n").expect("a config file");
    let run = qoft(&["train", "--config", arg(&yaml)]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("max_stepz"), "{}", run.stderr);
    assert!(run.stderr.contains("run.yaml"), "{}", run.stderr);
}

#[test]
fn generate_repeats_itself() {
    let work = tempdir().expect("a folder");
    let model = model_with_tokenizer(MODEL, work.path());
    for more in [&[][..], &["--temperature=0.9", "--seed=3"], &["--chat"]] {
        let args = [
            "generate",
            "--model",
            arg(&model),
            "--prompt",
            "Hello there",
            "--max-new-tokens=12",
        ];
        let args = [&args, more].concat();
        let (first, second) = (good(&args).stdout, good(&args).stdout);
        assert_eq!(first, second, "{more:?}");
        assert!(first.trim().len() > 1, "{first:?}");
        let echoed = first.starts_with("Hello there");
        assert_eq!(echoed, !more.contains(&"--chat"), "{first:?}");
    }
    let prompt = ["--prompt", "Hello there", "--max-new-tokens=12", "--json"];
    let args = [&["generate", "--model", arg(&model)][..], &prompt].concat();
    let report = json_of(&args);
    let count = report["new_tokens"].as_u64().expect("a number");
    assert!((1..=12).contains(&count), "{report}");
    assert!(report["prompt_seconds"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["tokens_per_second"].is_f64(), count > 1, "{report}");
}

#[test]
fn generate_takes_the_options_of_the_model() {
    let work = tempdir().expect("a folder");
    let model = model_with_tokenizer(MODEL, work.path());
    let file = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [5, 7],
        "max_new_tokens": 9, "num_beams": 3, "stop_strings": ["never"]}"#;
    fs::write(model.join("generation_config.json"), file).expect("a written file");
    let generate = |more: &[&str]| {
        let prompt = ["--prompt", "Hello there"];
        qoft(&[&["generate", "--model", arg(&model)][..], &prompt, more].concat())
    };
    let options = |more: &[&str]| {
        let run = generate(&[more, &["--json"]].concat());
        assert!(run.stderr.contains("num_beams"), "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert!(report["new_tokens"].as_u64() <= report["options"]["max_new_tokens"].as_u64());
        report["options"].clone()
    };
    let own = options(&[]);
    assert_eq!(own["do_sample"], true);
    assert_eq!((&own["top_k"], &own["top_p"]), (&json!(20), &json!(0.95)));
    assert_eq!(
        (&own["max_new_tokens"], &own["min_p"]),
        (&json!(9), &json!(0.0))
    );
    assert_eq!(own["stop_strings"], json!(["never"]));
    let ends = own["eos_token_id"].as_array().expect("ids");
    assert!(ends.starts_with(&[json!(5), json!(7)]), "{own}");

    let greedy = options(&[
        "--temperature=0",
        "--max-new-tokens=3",
        "--eos_token_id=4,6",
    ]);
    assert_eq!(greedy["do_sample"], false);
    assert_eq!(
        (&greedy["max_new_tokens"], &greedy["eos_token_id"]),
        (&json!(3), &json!([4, 6]))
    );
    let drawn = options(&[
        "--top-k=3",
        "--min-p=0.1",
        "--repetition-penalty=1.2",
        "--stop-strings=x",
    ]);
    assert_eq!((&drawn["top_k"], &drawn["min_p"]), (&json!(3), &json!(0.1)));
    assert_eq!(drawn["repetition_penalty"], 1.2);
    assert_eq!(drawn["stop_strings"], json!(["x"]));

    let told = generate(&["--do-sample=false", "--top-p=0.5"]).stderr;
    assert!(
        told.contains("the likeliest token each time; at most 9 new tokens"),
        "{told}"
    );
    assert!(told.contains("--top-p has no effect"), "{told}");
    let told = generate(&["--temperature=0.8"]).stderr;
    assert!(
        told.contains("draws with temperature 0.8, top-k 20, top-p 0.95"),
        "{told}"
    );
    let wrong = generate(&["--min-p=2"]);
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.stderr.contains("`min_p`: must be from 0 to 1"),
        "{}",
        wrong.stderr
    );
    fs::write(model.join("generation_config.json"), r#"{"top_k": "all"}"#).expect("a written file");
    let wrong = generate(&[]);
    assert!(
        wrong.stderr.contains("generation_config.json"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn generate_applies_reflections() {
    let work = tempdir().expect("a folder");
    let quantized = model_with_tokenizer(MODEL, work.path());
    let model = work.path().join("dense");
    good(&["dequantize", arg(&quantized), "--output", arg(&model)]);
    let (out, merged) = (work.path().join("hra"), work.path().join("merged"));
    let train = [
        "train",
        "--model",
        arg(&model),
        "--output",
        arg(&out),
        "--data",
        &fixture(ROWS),
        "--peft-type=hra",
        "--target-modules=all-linear",
        "--learning-rate=0.05",
        "--max-steps=5",
    ];
    good(&train);
    let adapter = ["--model", arg(&model), "--adapter", arg(&out)];
    good(&[&["merge"], &adapter[..], &["--output", arg(&merged)]].concat());
    let text = |model: &[&str]| {
        let prompt = ["--prompt", "Hello there", "--max-new-tokens=12"];
        good(&[&["generate"], model, &prompt].concat()).stdout
    };
    let adapted = text(&adapter);
    assert_eq!(adapted, text(&["--model", arg(&merged)]));
    assert_ne!(adapted, text(&["--model", arg(&model)]));
}

#[test]
fn quickstart_runs() {
    let work = tempdir().expect("a folder");
    let out = work.path().join("start");
    let run = good(&["quickstart", "--max-steps=2", "--output", arg(&out)]);
    assert!(run.stdout.contains("loss on unseen verses"));
    assert_eq!(
        names(&out),
        ["adapter", "data.jsonl", "eval.jsonl", "model"]
    );
    let adapter = out.join("adapter/adapter_model.safetensors");
    assert!(adapter.is_file());

    // It does not begin again once it is done, but after it was killed it does.
    let again = ["quickstart", "--max-steps=2", "--output", arg(&out)];
    let run = qoft(&again);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("done here"), "{}", run.stderr);
    std::fs::remove_file(&adapter).expect("an adapter");
    good(&again);
    assert!(adapter.is_file());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(["inspect", &fixture(MODEL)])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{says}");
}
