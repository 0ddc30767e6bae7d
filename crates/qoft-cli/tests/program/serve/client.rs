//! A server of the tests' own, and a client that knows no more than it has to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{arg, good, with_default_signals};

/// The model of the quickstart, with two adapters that were trained on it.
pub struct Model {
    folder: TempDir,
}

impl Model {
    /// Trains both adapters for some steps.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Self { folder };
        for (name, rate) in [("a", "0.02"), ("b", "0.05")] {
            let rate = format!("--learning-rate={rate}");
            let (path, data) = (model.path(), quickstart("eval.jsonl"));
            good(&[
                "train",
                "--model",
                arg(&path),
                "--data",
                arg(&data),
                "--output",
                arg(&model.adapter(name)),
                "--target-modules=all-linear",
                "--max-steps=4",
                "--max-length=32",
                &rate,
            ]);
        }
        model
    }

    /// The model's folder.
    pub fn path(&self) -> PathBuf {
        quickstart("")
    }

    /// The folder of an adapter.
    pub fn adapter(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `qoft generate` writes behind a prompt without draws.
    pub fn generate(&self, prompt: &str, tokens: usize, adapters: &[&str]) -> String {
        let (path, tokens) = (self.path(), format!("--max-new-tokens={tokens}"));
        let mut args = vec![
            "generate",
            "--model",
            arg(&path),
            "--prompt",
            prompt,
            &tokens,
        ];
        args.extend(["--temperature=0", "--json"]);
        let folders: Vec<String> = adapters.iter().map(|adapter| self.named(adapter)).collect();
        for folder in &folders {
            args.extend(["--adapter", folder]);
        }
        let told: Value = serde_json::from_str(&good(&args).stdout).expect("JSON");
        told["text"].as_str().expect("a text").to_owned()
    }

    /// `NAME[=STRENGTH]` as an adapter's path.
    fn named(&self, adapter: &str) -> String {
        let (name, strength) = adapter.split_once('=').unwrap_or((adapter, "1"));
        format!("{}={strength}", arg(&self.adapter(name)))
    }
}

fn quickstart(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    match name {
        "" => folder,
        name => folder.join(name),
    }
}

/// A server, which ends with the value.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    errors: BufReader<std::process::ChildStderr>,
}

impl Server {
    /// Starts one on a free port, with both adapters.
    pub fn start(model: &Model, more: &[&str]) -> Self {
        let adapters = ["a", "b"].map(|name| format!("{name}={}", arg(&model.adapter(name))));
        let mut args = vec!["--chat-template=chatml"];
        for adapter in &adapters {
            args.extend(["--adapter", adapter]);
        }
        args.extend(more);
        Self::of(&model.path(), &args)
    }

    /// Starts one of another model, which is called `base`.
    pub fn of(model: &Path, more: &[&str]) -> Self {
        let mut command: Command = with_default_signals();
        command.args(["serve", "--model", arg(model), "--served-model-name=base"]);
        command.arg("--port=0").args(more);
        command.env_remove("QOFT_LOG").env_remove("QOFT_API_KEY");
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("standard error"));
        let mut line = String::new();
        while !line.starts_with("serving") {
            line.clear();
            let read = errors.read_line(&mut line).expect("a line");
            assert!(read > 0, "the server ends");
        }
        let address = line.split("http://").nth(1).expect("an address");
        let address = address.split('/').next().expect("an address");
        Self {
            child,
            address: address.parse().expect("an address"),
            errors,
        }
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        let longest = Some(Duration::from_secs(120));
        stream.set_read_timeout(longest).expect("a timeout");
        stream
    }

    /// What is answered to these bytes.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server may answer before all is sent.
        let _ = stream.write_all(bytes);
        Answer::read(stream)
    }

    /// What is answered to a GET.
    pub fn get(&self, path: &str) -> Answer {
        self.raw(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
    }

    /// What is answered to JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(request(path, &body.to_string(), "").as_bytes())
    }

    /// The text of a completion without draws.
    pub fn complete(&self, model: &str, prompt: &str, tokens: usize) -> String {
        let body =
            json!({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0});
        let answer = self.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = &answer.json()["choices"][0]["text"];
        text.as_str().expect("a text").to_owned()
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop by a signal.
    pub fn signal(&self, signal: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// How it ends, and what it says then.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("a status"), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A POST of JSON; `more` has further headers.
pub fn request(path: &str, body: &str, more: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         {more}Connection: close\r\n\r\n{body}"
    )
}

/// An answer of a connection that ends with it.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads to the end.
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection may be reset where a request was not read to its end.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        Self {
            status: status.unwrap_or(0),
            body: match chunked {
                true => joined(body),
                false => body.to_owned(),
            },
            head: head.to_owned(),
        }
    }

    /// The body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The events of a stream, which has to end as streams do.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.body.split("\n\n").filter(|line| !line.is_empty());
        let mut lines: Vec<&str> = lines.filter(|line| !line.starts_with(':')).collect();
        assert_eq!(lines.pop(), Some("data: [DONE]"), "{}", self.body);
        let event = |line: &str| {
            let event = line.strip_prefix("data: ").expect("an event");
            serde_json::from_str(event).expect("JSON")
        };
        lines.into_iter().map(event).collect()
    }
}

/// A body without the lengths of its chunks. Lengths are those of bytes.
fn joined(body: &str) -> String {
    let (mut rest, mut whole) = (body.as_bytes(), Vec::new());
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        rest = &rest[end + 2..];
        if length == 0 {
            break;
        }
        whole.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
    String::from_utf8(whole).expect("text")
}
