//! Conversations through a pipe, prompts of a file, and questions with several answers.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::tempdir;

use crate::common::{arg, good, json_of, qoft};

fn model() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    arg(&folder).to_owned()
}

/// What `qoft chat` writes to both outputs for these lines.
fn chat(more: &[&str], lines: &str) -> (String, String) {
    let model = model();
    let args = [
        "chat",
        "--model",
        &model,
        "--chat-template=chatml",
        "--max-new-tokens=6",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(args)
        .arg("--temperature=0")
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(lines.as_bytes()).expect("lines");
    drop(input);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_conversation_goes_through_a_pipe() {
    let work = tempdir().expect("a folder");
    let (saved, adapter) = (work.path().join("talk.jsonl"), work.path().join("a"));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/eval.jsonl");
    let train = [
        "train",
        "--model",
        &model(),
        "--data",
        arg(&data),
        "--output",
        arg(&adapter),
    ];
    good(
        &[
            &train[..],
            &["--max-steps=4", "--learning-rate=0.05", "--max-length=32"],
        ]
        .concat(),
    );

    let (first, _) = chat(&[], "He said\n");
    assert_eq!(first.lines().count(), 1, "{first}");
    let lines = format!(
        "/help\n\n/system Be brief.\nHe said\nAnd then?\n/save {0}\n/save {0}\n/rest\n/reset\n/system none\nHe said\n\
         /adapter {1}\nHe said\n/adapter\n/adapter none\n/adapter nowhere\n/exit\nnever\n",
        arg(&saved),
        arg(&adapter)
    );
    let (out, told) = chat(&["--system=Be long."], &lines);
    let answers: Vec<&str> = out.split_inclusive('\n').collect();
    // Without a word of the system, and from the beginning, the answer is the first one again.
    assert!(out.contains(&first), "{out:?} {first:?}");
    assert!(answers.len() >= 4, "{out:?}");
    for said in [
        "/adapter none",
        "/reset?",
        "exists already",
        &format!("* {}", arg(&adapter)),
        "nowhere",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let row: Value =
        serde_json::from_str(&fs::read_to_string(&saved).expect("a file")).expect("JSON");
    let roles: Vec<&Value> = row["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|m| &m["role"])
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(row["messages"][0]["content"], "Be brief.");

    let model = model();
    let none = qoft(&["chat", "--model", &model]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("chat-template"), "{}", none.stderr);
}

#[test]
fn a_template_for_nothing_is_told() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/eval.jsonl");
    let model = model();
    let args = [
        "data",
        "preview",
        "--model",
        &model,
        "-n",
        "1",
        "--chat-template=chatml",
    ];
    let run = good(&[&args[..], &["--data", arg(&text)]].concat());
    assert!(run.stderr.contains("no row has messages"), "{}", run.stderr);
    let work = tempdir().expect("a folder");
    let file = work.path().join("chat.jsonl");
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    std::fs::write(&file, row).expect("a file");
    let run = good(&[&args[..], &["--data", arg(&file)]].concat());
    assert!(
        !run.stderr.contains("no row has messages"),
        "{}",
        run.stderr
    );
}

#[test]
fn prompts_of_a_file_become_what_each_becomes_alone() {
    let work = tempdir().expect("a folder");
    let file = work.path().join("prompts.jsonl");
    let prompts = [
        "In the evening he",
        "He",
        "And when the day was come, the king of the",
    ];
    let rows = prompts.map(|prompt| serde_json::json!({"prompt": prompt}).to_string());
    fs::write(&file, rows.join("\n")).expect("a file");
    let model = model();
    let options = ["--max-new-tokens=16", "--temperature=0.8", "--seed=5"];
    let generate = [&["generate", "--model", &model][..], &options].concat();
    for size in ["1", "2", "8"] {
        let run = good(
            &[
                &generate[..],
                &["--prompts", arg(&file), "--batch-size", size],
            ]
            .concat(),
        );
        let lines: Vec<Value> = run
            .stdout
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 3);
        for (line, prompt) in lines.iter().zip(prompts) {
            let alone = json_of(&[&generate[..], &["--prompt", prompt]].concat());
            assert_eq!(
                (&line["prompt"], &line["text"]),
                (&prompt.into(), &alone["text"])
            );
        }
    }
    fs::write(&file, "{\"question\": 1}").expect("a file");
    let wrong = qoft(&[&generate[..], &["--prompts", arg(&file)]].concat());
    assert!(
        wrong.stderr.contains("line 1: prompt must be"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_prompt_is_written_by_another_template() {
    let model = model();
    let generate = [
        "generate",
        "--model",
        &model,
        "--prompt=Who?",
        "--max-new-tokens=4",
    ];
    let with = |more: &[&str]| json_of(&[&generate[..], &["--temperature=0"], more].concat());
    let tokens = |more: &[&str]| with(more)["prompt_tokens"].as_u64().expect("a number");
    let chatml = tokens(&["--chat", "--chat-template=chatml"]);
    assert!(chatml > tokens(&[]));
    let alone = qoft(&[&generate[..], &["--chat-template=chatml"]].concat());
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("without --chat"), "{}", alone.stderr);
}

#[test]
fn accuracy_is_how_often_the_right_answer_is_the_likeliest() {
    let work = tempdir().expect("a folder");
    let file = work.path().join("questions.jsonl");
    let row = |answer: usize| {
        let question = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a";
        let choices = ["wife.", "qz xv qz xv qz."];
        serde_json::json!({"question": question, "choices": choices, "answer": answer}).to_string()
    };
    let model = model();
    let measure = |answers: &[usize]| {
        let rows: Vec<String> = answers.iter().map(|answer| row(*answer)).collect();
        fs::write(&file, rows.join("\n")).expect("a file");
        json_of(&["eval", "--model", &model, "--data", arg(&file)])
    };
    let all = measure(&[0, 0, 0, 0]);
    assert_eq!(
        (&all["accuracy"], &all["accuracy_norm"], &all["questions"]),
        (&1.0.into(), &1.0.into(), &4.into())
    );
    let half = measure(&[0, 1, 1, 0]);
    assert_eq!(half["accuracy"], 0.5);
    assert!(half["loss"].as_f64() > all["loss"].as_f64());
    let line = good(&[
        "eval",
        "--model",
        &model,
        "--data",
        arg(&file),
        "--data-format=multiple-choice",
    ]);
    assert!(
        line.stdout
            .starts_with("accuracy 0.5000 ± 0.2887  normalized"),
        "{}",
        line.stdout
    );
}
