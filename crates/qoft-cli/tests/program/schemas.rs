//! What commands print as JSON is what `docs/schemas` says.

mod check;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use qoft_fixtures::hub::HubServer;
use serde_json::{Value, json};
use tempfile::tempdir;

use self::check::problem;
use crate::common::{arg, good, qoft_with};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

fn schema(name: &str) -> Value {
    let path = docs("schemas").join(format!("{name}.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Outputs that were compared, by their schemas.
#[derive(Default)]
struct Compared(BTreeSet<String>);

impl Compared {
    #[track_caller]
    fn add(&mut self, name: &str, output: &str) {
        let schema = schema(name);
        for line in output.lines() {
            let value: Value = serde_json::from_str(line).expect("JSON");
            if let Some(problem) = problem(&schema, &value) {
                panic!("{name}.json: {problem} in {value}");
            }
        }
        assert!(!output.trim().is_empty(), "{name}: nothing");
        self.0.insert(name.to_owned());
    }
}

#[test]
fn outputs_are_those_of_the_schemas() {
    let work = tempdir().expect("a folder");
    let at = |name: &str| work.path().join(name);
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    let (model, data) = (arg(&quickstart), quickstart.join("eval.jsonl"));
    let (data, adapter) = (arg(&data), at("adapter"));
    let run = |args: &[&str]| good(args).stdout;
    let short = [
        "--data",
        data,
        "--max-length=24",
        "--target-modules=all-linear",
    ];
    let with = |args: &[&str]| run(&[args, &short[..]].concat());
    let mut compared = Compared::default();

    compared.add("backends", &run(&["backends", "--json"]));
    compared.add("devices", &run(&["devices", "--json"]));
    compared.add("inspect", &run(&["inspect", model, "--json"]));
    let moe = qoft_fixtures::path("models/gpt2");
    compared.add("inspect", &run(&["inspect", arg(&moe), "--json"]));
    let train = [
        "train",
        "--model",
        model,
        "--output",
        arg(&adapter),
        "--json",
        "--max-steps=2",
    ];
    let told = with(
        &[
            &train[..],
            &["--val-size=0.2", "--eval-steps=1", "--learning-rate=0.02"],
        ]
        .concat(),
    );
    compared.add("train", &told);
    compared.add(
        "log",
        &fs::read_to_string(adapter.join("log.jsonl")).expect("a log"),
    );
    compared.add("estimate", &with(&["estimate", "--model", model, "--json"]));
    let plot = format!("--plot={}", arg(&at("find.svg")));
    compared.add(
        "lr-find",
        &with(&[
            "lr-find",
            "--model",
            model,
            "--json",
            "--max-steps=12",
            &plot,
        ]),
    );
    let adapted = ["--model", model, "--adapter", arg(&adapter)];
    let of = |command: &[&str], more: &[&str]| run(&[command, &adapted[..], more].concat());
    compared.add(
        "eval",
        &of(&["eval", "--json"], &["--data", data, "--max-length=24"]),
    );
    let (questions, prompts) = (at("questions.jsonl"), at("prompts.jsonl"));
    fs::write(
        &questions,
        "{\"question\": \"And it\", \"choices\": [\"is\", \"was\"], \"answer\": 1}\n",
    )
    .expect("a file");
    fs::write(&prompts, "{\"prompt\": \"And it\"}\n").expect("a file");
    compared.add(
        "eval-multiple-choice",
        &of(&["eval", "--json"], &["--data", arg(&questions)]),
    );
    let few = "--max-new-tokens=3";
    compared.add(
        "generate",
        &of(&["generate", "--json"], &["--prompt=And it", few]),
    );
    compared.add(
        "generate-prompts",
        &of(&["generate"], &["--prompts", arg(&prompts), few]),
    );
    fs::write(
        &prompts,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"And it\"}]}\n",
    )
    .expect("a file");
    let scripted = qoft_fixtures::path("scripted");
    let chat = fs::copy(
        qoft_fixtures::path("templates/trl/qwen3.jinja"),
        at("chat.jinja"),
    );
    chat.expect("a copy");
    let copy = at("scripted");
    fs::create_dir(&copy).expect("a folder");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(scripted.join(name), copy.join(name)).expect("a copy");
    }
    fs::rename(at("chat.jinja"), copy.join("chat_template.jinja")).expect("a file");
    let conversation = [
        "generate",
        "--model",
        arg(&copy),
        "--prompts",
        arg(&prompts),
        few,
    ];
    compared.add("generate-prompts", &run(&conversation));
    compared.add(
        "dequantize",
        &run(&["dequantize", model, "--output", arg(&at("dense")), "--json"]),
    );
    let (dense, four, folder) = (at("dense"), at("four"), at("lora"));
    let quantize = [
        "quantize",
        "--model",
        arg(&dense),
        "--load-in-4bit",
        "--output",
        arg(&four),
        "--json",
    ];
    compared.add("quantize", &run(&quantize));
    compared.add(
        "merge",
        &of(
            &["merge", "--json"],
            &["--dequantize", "--output", arg(&at("merged"))],
        ),
    );
    let lora = ["--to=lora", "--rank=2", "--output", arg(&folder)];
    compared.add("export-lora", &of(&["export", "--json"], &lora));
    let gguf = at("model.gguf");
    compared.add(
        "merge",
        &of(
            &["export", "--json"],
            &["--to=gguf", "--output", arg(&gguf)],
        ),
    );
    let hub = HubServer::start();
    let env = [
        ("HF_ENDPOINT", hub.endpoint.as_str()),
        ("HF_TOKEN", "t"),
        ("HF_HOME", arg(work.path())),
    ];
    let pushed = qoft_with(&env, &["push", arg(&adapter), "o/a", "--json"]);
    compared.add("push", &pushed.stdout);

    // Nothing is documented that is not compared, and all of it is in the page.
    let files = fs::read_dir(docs("schemas")).expect("a folder").flatten();
    let names: BTreeSet<String> = files
        .map(|file| {
            file.path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(compared.0, names);
    let page = fs::read_to_string(docs("json.md")).expect("a page");
    for name in names {
        assert!(page.contains(&format!("(schemas/{name}.json)")), "{name}");
    }
}

#[test]
fn what_differs_from_a_schema_is_found() {
    let schema = schema("eval");
    let good = json!({"loss": 1.5, "perplexity": null, "tokens": 3, "metrics": {"a": 0.5}});
    assert_eq!(problem(&schema, &good), None);
    for (field, value) in [
        ("loss", json!("1.5")),
        ("tokens", json!(1.5)),
        ("tokens", json!(-1)),
        ("metrics", json!({"a": "b"})),
        ("other", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(problem(&schema, &bad).is_some(), "{bad}");
    }
    assert!(problem(&schema, &json!({"loss": 1.5, "tokens": 3, "metrics": {}})).is_some());
    let log = self::schema("log");
    assert!(problem(&log, &json!({"step": 1})).is_some());
}
