//! What people do with an adapter once they have one: the Hub, chats, files of prompts, the server.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use qoft_fixtures::hub::HubServer;
use serde_json::{Value, json};

use super::prepare;
use crate::serve::client::Server;

/// Options that make a training short.
const SHORT: &str = "--max-steps 2 --batch-size 2 --max-length 48 --learning-rate 1e-3";

/// A command, what it reads, and what it has to say or to leave.
type Task = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const TASKS: &[Task] = &[
    (
        "--version",
        "",
        &["qoft 0.", "features: ", "instructions: "],
        &[],
    ),
    (
        "help serve",
        "",
        &["--adapter <[NAME=]PATH[=STRENGTH]>", "Examples"],
        &[],
    ),
    ("completions bash", "", &["_qoft()"], &[]),
    ("completions zsh", "", &["#compdef qoft"], &[]),
    (
        "man pages",
        "",
        &["pages in"],
        &["pages/qoft.1", "pages/qoft-serve.1"],
    ),
    // Names of the Hub stand for models, adapters and data.
    (
        "inspect owner/model@main --json",
        "",
        &["\"model_type\":\"llama\""],
        &[],
    ),
    (
        "train --model owner/model --data owner/texts --output mine SHORT",
        "",
        &["8 rows (text)"],
        &["mine/adapter_model.safetensors"],
    ),
    (
        "push mine owner/mine --private",
        "",
        &["files pushed: http://127.0.0.1:"],
        &[],
    ),
    (
        "eval --model owner/model --adapter mine --data owner/texts --max-length 48",
        "",
        &["loss"],
        &[],
    ),
    (
        "eval --model owner/model --data questions.jsonl",
        "",
        &["accuracy", "normalized", "questions 2"],
        &[],
    ),
    (
        "eval --model model --data questions.jsonl --json",
        "",
        &["\"accuracy_norm\":"],
        &[],
    ),
    (
        "generate --model owner/model --adapter mine=0.5 --prompt Emma --max-new-tokens 5 --presence-penalty 0.5",
        "",
        &["presence penalty 0.5"],
        &[],
    ),
    (
        "generate --model model --prompts prompts.jsonl --batch-size 2 --max-new-tokens 4",
        "",
        &[
            "{\"prompt\":\"Emma\",\"text\":",
            "{\"prompt\":\"The garden\",\"text\":",
            "3 prompts",
        ],
        &[],
    ),
    (
        "chat --model model --adapter mine --chat-template chatml --max-new-tokens 5",
        "/system Be short.\nWho is it?\n/adapter mine=0.5\n/reset\nAnd now?\n/save talk.jsonl\n",
        &["talk.jsonl"],
        &["talk.jsonl"],
    ),
];

/// Commands that fail, and the way out that they name.
const FAILING: &[(&str, &str)] = &[
    ("serv --model model", "'serve'"),
    ("serve --model model --host 0.0.0.0", "--api-key"),
    ("serve --model model --adapter mine=nowhere", "nowhere"),
    (
        "generate --model owner/nothing --prompt x",
        "has no such model",
    ),
    (
        "generate --model owner/model@v9 --prompt x",
        "owner/model@v9",
    ),
    (
        "generate --model model --prompt x --presence-penalty 3",
        "from -2 to 2",
    ),
    (
        "generate --model model --prompt x --logit-bias 5",
        "13=-100",
    ),
    (
        "eval --model model --data broken.jsonl --data-format multiple-choice",
        "broken.jsonl",
    ),
    ("push nowhere owner/mine", "nowhere"),
    ("completions fsh", "'fish'"),
];

#[test]
fn tasks_with_a_trained_adapter_work() {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let write =
        |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("a file");
    write(
        "questions.jsonl",
        "{\"question\": \"Emma saw number\", \"choices\": [\"one\", \"garden\"], \"answer\": 0}\n\
         {\"question\": \"Emma\", \"choices\": [\"smiled.\", \"of\", \"it it it\"], \"answer\": \"A\"}\n",
    );
    write(
        "broken.jsonl",
        "{\"question\": \"Emma\", \"choices\": [\"one\"], \"answer\": 7}\n",
    );
    write(
        "prompts.jsonl",
        "{\"prompt\": \"Emma\"}\n{\"prompt\": \"The garden\"}\n{\"prompt\": \"He\"}\n",
    );
    let hub = HubServer::start();
    hub.add_folder("models/owner/model", &folder.path().join("model"));
    let texts = fs::read(folder.path().join("texts.jsonl")).expect("a file");
    hub.add("datasets/owner/texts", "train.jsonl", texts);
    for (command, input, says, leaves) in TASKS {
        let (is_good, said) = run(folder.path(), &hub, command, input);
        assert!(is_good, "qoft {command}\n{said}");
        for text in *says {
            assert!(
                said.contains(text),
                "qoft {command}\nno `{text}` in\n{said}"
            );
        }
        for name in *leaves {
            assert!(
                folder.path().join(name).exists(),
                "qoft {command}: no {name}\n{said}"
            );
        }
    }
    for (command, way) in FAILING {
        let (is_good, said) = run(folder.path(), &hub, command, "");
        assert!(!is_good && said.contains(way), "qoft {command}\n{said}");
        assert!(!said.contains("panicked"), "qoft {command}\n{said}");
    }
    serves(folder.path());
}

/// The adapter is served, and asked as `curl` and other clients do it.
fn serves(folder: &Path) {
    let adapter = format!("mine={}", folder.join("mine").display());
    let server = Server::of(
        &folder.join("model"),
        &["--adapter", &adapter, "--chat-template=chatml"],
    );
    let models = server.get("/v1/models").json();
    let names: Vec<&Value> = models["data"]
        .as_array()
        .expect("models")
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(names, ["base", "mine"]);
    let messages = json!([{"role": "user", "content": "Who is it?"}]);
    let mut body =
        json!({"model": "mine", "messages": messages, "max_tokens": 5, "temperature": 0});
    let whole = server.post("/v1/chat/completions", &body);
    assert_eq!(whole.status, 200, "{}", whole.body);
    let text = whole.json()["choices"][0]["message"]["content"].clone();
    body["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &body).events();
    let parts = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text, parts.collect::<String>());
    assert_eq!(
        server.complete("mine=0.5", "Emma", 3),
        server.complete("mine=0.5", "Emma", 3)
    );
    assert!(
        server
            .get("/metrics")
            .body
            .contains("qoft_generation_tokens_total")
    );
    assert_eq!(server.get("/health").status, 200);
}

fn run(folder: &Path, hub: &HubServer, command: &str, input: &str) -> (bool, String) {
    let command = command.replace("SHORT", SHORT);
    let mut child = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(command.split_whitespace())
        .current_dir(folder)
        .envs([
            ("HF_ENDPOINT", hub.endpoint.as_str()),
            ("HF_TOKEN", "t"),
            ("HF_HOME", "home"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end without reading.
    let _ = child
        .stdin
        .take()
        .expect("standard input")
        .write_all(input.as_bytes());
    let output = child.wait_with_output().expect("an end");
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    (output.status.success(), texts.concat())
}
