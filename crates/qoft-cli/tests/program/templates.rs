//! The chat template that an adapter is trained with goes with it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::common::{arg, good, qoft};

/// A template whose text nobody else writes.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}[assistant]{% endif %}";
const PROMPT: &str = "[user] And it came to pass\n[assistant]";

/// The model of the quickstart, which has no chat template.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart")
}

/// An adapter that was trained with [`TEMPLATE`].
fn trained() -> TempDir {
    let work = tempdir().expect("a folder");
    let (template, data) = (work.path().join("my.jinja"), work.path().join("data.jsonl"));
    fs::write(&template, TEMPLATE).expect("a file");
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let row = json!({"messages": [said("user", "a day"), said("assistant", "and a night")]});
    fs::write(&data, format!("{row}\n{row}\n")).expect("a file");
    good(&[
        "train",
        "--model",
        arg(&model()),
        "--data",
        arg(&data),
        "--output",
        arg(&work.path().join("adapter")),
        "--chat-template",
        arg(&template),
        "--max-steps=2",
        "--learning-rate=0.02",
        "--save-steps=1",
    ]);
    work
}

/// The weights of the adapter in `work` without the files beside them.
fn without_template(work: &TempDir) -> PathBuf {
    let (adapter, plain) = (work.path().join("adapter"), work.path().join("plain"));
    fs::create_dir(&plain).expect("a folder");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter.join(name), plain.join(name)).expect("a file");
    }
    plain
}

/// What is written behind a prompt, or as the answer to a user's message.
fn generated(model: &Path, adapter: Option<&Path>, prompt: &[&str]) -> String {
    let base = [
        "generate",
        "--model",
        arg(model),
        "--json",
        "--temperature=0",
    ];
    let adapter = adapter.map(|adapter| ["--adapter", arg(adapter)]);
    let adapter = adapter.iter().flatten().copied();
    let args = base
        .into_iter()
        .chain(adapter)
        .chain(["--max-new-tokens=12"]);
    let args: Vec<&str> = args.chain(prompt.iter().copied()).collect();
    let told: Value = serde_json::from_str(&good(&args).stdout).expect("JSON");
    told["text"].as_str().expect("a text").to_owned()
}

const CHAT: [&str; 3] = ["--chat", "--prompt", "And it came to pass"];

#[test]
fn an_adapter_brings_the_template_that_it_was_trained_with() {
    let work = trained();
    let adapter = work.path().join("adapter");
    let text = fs::read_to_string(adapter.join("chat_template.jinja")).expect("a template");
    assert_eq!(text, TEMPLATE);
    // The model by itself has none.
    let alone = qoft(&[&["generate", "--model", arg(&model())][..], &CHAT].concat());
    assert!(
        alone.stderr.contains("need a chat template"),
        "{}",
        alone.stderr
    );
    for folder in [adapter.clone(), adapter.join("checkpoint-1")] {
        let expected = generated(&model(), Some(&folder), &["--prompt", PROMPT]);
        assert_eq!(generated(&model(), Some(&folder), &CHAT), expected);
    }
    let other = ["--chat-template=chatml"];
    let given = generated(&model(), Some(&adapter), &[&CHAT[..], &other].concat());
    // The same weights from a program that leaves no template beside them.
    let expected = generated(
        &model(),
        Some(&without_template(&work)),
        &[&CHAT[..], &other].concat(),
    );
    assert_eq!(given, expected, "a template that is given wins");

    let merged = work.path().join("merged");
    good(&[
        "merge",
        "--model",
        arg(&model()),
        "--adapter",
        arg(&adapter),
        "--output",
        arg(&merged),
    ]);
    let text = fs::read_to_string(merged.join("chat_template.jinja")).expect("a template");
    assert_eq!(text, TEMPLATE);
    let expected = generated(&merged, None, &["--prompt", PROMPT]);
    assert_eq!(generated(&merged, None, &CHAT), expected);
}

#[test]
#[cfg(all(unix, feature = "serve"))]
fn each_adapter_of_a_server_has_its_own_template() {
    use crate::serve::client::Server;

    let work = trained();
    let adapter = work.path().join("adapter");
    let plain = without_template(&work);
    let named = [("own", &adapter), ("plain", &plain)];
    let named = named.map(|(name, folder)| format!("{name}={}", arg(folder)));
    let server = Server::of(&model(), &["--adapter", &named[0], "--adapter", &named[1]]);
    let ask = |model: &str| {
        let messages = json!([{"role": "user", "content": "And it came to pass"}]);
        let body =
            json!({"model": model, "messages": messages, "max_tokens": 12, "temperature": 0});
        server.post("/v1/chat/completions", &body)
    };
    let expected = generated(&model(), Some(&adapter), &["--prompt", PROMPT]);
    for name in ["own", "plain+own"] {
        let answer = ask(name);
        assert_eq!(answer.status, 200, "{}", answer.body);
        if name == "own" {
            let value: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(value["choices"][0]["message"]["content"], expected);
        }
    }
    for name in ["base", "plain"] {
        let answer = ask(name);
        assert_eq!(answer.status, 400, "{name}: {}", answer.body);
        assert!(answer.body.contains("chat template"), "{}", answer.body);
    }
}
