//! Names on the Hugging Face Hub in place of paths, with a Hub on 127.0.0.1.

use std::fs;
use std::path::Path;

use qoft_fixtures::hub::HubServer;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::common::{Run, arg, qoft_with};

/// A Hub with a model, and a user with a cache.
struct Visit {
    server: HubServer,
    home: TempDir,
}

impl Visit {
    fn new() -> Self {
        let server = HubServer::start();
        let data = qoft_fixtures::path("train/nf4_all_linear/rows.jsonl");
        server.add_folder("models/o/m", &qoft_fixtures::path("models/llama_nf4"));
        server.add("datasets/o/d", "train.jsonl", fs::read(data).unwrap());
        server.add("datasets/o/d", "test.jsonl", "{}");
        server.state().revisions.push("v1".into());
        let home = tempdir().unwrap();
        Self { server, home }
    }

    fn run(&self, more: &[(&str, &str)], args: &[&str]) -> Run {
        let home = self.home.path().display().to_string();
        let env = [
            ("HF_ENDPOINT", self.server.endpoint.as_str()),
            ("HF_HOME", &home),
        ];
        qoft_with(&[&env, more].concat(), args)
    }

    #[track_caller]
    fn good(&self, args: &[&str]) -> Run {
        let run = self.run(&[], args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        run
    }

    #[track_caller]
    fn refused(&self, more: &[(&str, &str)], args: &[&str], needle: &str) {
        let run = self.run(more, args);
        assert_eq!(run.code, Some(1), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(needle), "{}", run.stderr);
        assert_eq!(run.stderr.trim().lines().count(), 1, "{}", run.stderr);
    }
}

#[test]
fn a_model_and_data_of_the_hub_are_trained_and_the_adapter_goes_back() {
    let visit = Visit::new();
    let work = tempdir().unwrap();
    let run = work.path().join("run");
    let (train, steps) = (
        ["train", "--model", "o/m@v1", "--data", "o/d"],
        "--max-steps=2",
    );
    visit.good(
        &[
            &train[..],
            &[
                steps,
                "--batch-size=2",
                "--save-steps=1",
                "--output",
                arg(&run),
            ],
        ]
        .concat(),
    );
    let config = fs::read_to_string(run.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["base_model_name_or_path"], "o/m");
    assert_eq!(config["revision"], "v1");
    let card = fs::read_to_string(run.join("README.md")).unwrap();
    assert!(card.starts_with("---\nbase_model: \"o/m\"\n"), "{card}");

    let pushed = visit.run(&[("HF_TOKEN", "t")], &["push", arg(&run), "o/a", "--json"]);
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
    assert!(pushed.stdout.contains("\"url\""), "{}", pushed.stdout);
    visit.server.add_folder("models/o/a", &run);
    let eval = |model: &str, adapter: &str| {
        let run = visit.good(&[
            "eval",
            "--model",
            model,
            "--adapter",
            adapter,
            "--data",
            "o/d",
            "--json",
        ]);
        serde_json::from_str::<Value>(&run.stdout).unwrap()["loss"].clone()
    };
    let local = qoft_fixtures::path("models/llama_nf4");
    assert_eq!(
        eval("o/m", "o/a=0.5"),
        eval(arg(&local), &format!("{}=0.5", arg(&run)))
    );
    // With the options of the run, which name the model as it was.
    visit.good(&["train", "--resume-from", arg(&run), "--max-steps", "3"]);
}

#[test]
fn a_merge_of_a_model_in_the_cache_is_whole() {
    let visit = Visit::new();
    let work = tempdir().unwrap();
    let out = work.path().join("out");
    visit.good(&["dequantize", "o/m", "--output", arg(&out)]);
    assert!(out.join("model.safetensors").exists() && out.join("config.json").exists());
}

#[test]
fn what_cannot_be_had_is_one_line_that_helps() {
    let visit = Visit::new();
    visit.refused(
        &[],
        &["inspect", "o/x"],
        "o/x: the Hub at http://127.0.0.1:",
    );
    visit.refused(
        &[],
        &["inspect", "o/m/x.gguf"],
        "there is no `x.gguf` in it; it has config.json",
    );
    let offline = [("HF_HUB_OFFLINE", "1")];
    visit.refused(&offline, &["inspect", "o/m"], "and HF_HUB_OFFLINE is set");
    visit.good(&["inspect", "o/m"]);
    assert_eq!(visit.run(&offline, &["inspect", "o/m"]).code, Some(0));
    let eval = ["eval", "--model", "o/m", "--data", "data/train.jsonl"];
    visit.refused(&[], &eval, "data/train.jsonl does not exist");
    let push = ["push", arg(Path::new(".")), "o/a"];
    visit.refused(&[], &push, "neither an adapter nor a model");
    let adapter = qoft_fixtures::path("adapters/all_linear");
    let push = ["push", arg(&adapter), "o/a"];
    let nobody = [("HF_TOKEN", "t"), ("HF_ENDPOINT", "http://127.0.0.1:1")];
    visit.refused(&nobody, &push, "cannot be reached (Connection refused");
}
