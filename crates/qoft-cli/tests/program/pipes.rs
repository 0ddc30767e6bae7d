//! Data that comes through a pipe, and questions that are not one file.
#![cfg(unix)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::common::{arg, fixture, good, qoft};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

fn quickstart() -> String {
    arg(&Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart")).to_owned()
}

/// What a command prints that reads `text` through a pipe as its standard input.
fn piped(args: &[&str], text: &[u8]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(text).expect("rows");
    drop(input);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn data_of_a_pipe_is_read_once() {
    let (model, file) = (fixture(MODEL), fixture(ROWS));
    let work = tempdir().expect("a folder");
    let eval = ["eval", "--json", "--model", &model, "--data"];
    let expected = good(&[&eval[..], &[&file]].concat()).stdout;
    let rows = fs::read(&file).expect("rows");
    for cache in ["none", arg(work.path())] {
        for input in ["/dev/stdin", "-"] {
            let args = [&eval[..], &[input, "--data-cache", cache]].concat();
            assert_eq!(piped(&args, &rows), expected, "{input} {cache}");
        }
    }
    let out = work.path().join("out");
    let train = [
        "train",
        "--model",
        &model,
        "--max-steps=1",
        "--output",
        arg(&out),
    ];
    piped(&[&train[..], &["--data", "-"]].concat(), &rows);
    assert!(out.join("adapter_model.safetensors").exists());
    let questions = br#"{"question": "Who?", "choices": ["he", "zxq"], "answer": 0}"#;
    let file = work.path().join("questions.jsonl");
    fs::write(&file, questions).expect("a file");
    let model = quickstart();
    let eval = ["eval", "--json", "--model", &model, "--data"];
    let expected = good(&[&eval[..], &[arg(&file)]].concat()).stdout;
    let format = "--data-format=multiple-choice";
    let args = [&eval[..], &["/dev/stdin", format]].concat();
    assert_eq!(piped(&args, questions), expected);
    let prompts = b"{\"prompt\": \"She\"}\n{\"prompt\": \"He\"}\n";
    let args = [
        "generate",
        "--model",
        &model,
        "--max-new-tokens=2",
        "--prompts",
        "-",
    ];
    assert_eq!(piped(&args, prompts).lines().count(), 2);
}

#[test]
fn questions_are_one_file_with_their_own_fields() {
    let work = tempdir().expect("a folder");
    let file = work.path().join("questions.jsonl");
    fs::write(
        &file,
        r#"{"question": "Who?", "choices": ["he", "zxq"], "answer": 0}"#,
    )
    .expect("a file");
    let (model, file) = (quickstart(), arg(&file));
    let weighted = format!("{file}:2");
    for (more, says) in [
        (&["--data", file, "--data", file][..], "one file or folder"),
        (&["--data", &weighted], "one file or folder"),
        (&["--data", file, "--columns", "question=q"], "--columns"),
    ] {
        let run = qoft(&[&["eval", "--model", &model], more].concat());
        assert_eq!(run.code, Some(1), "{more:?}");
        assert!(run.stderr.contains(says), "{more:?}: {}", run.stderr);
    }
}
