//! Runs the program and prepares folders for it.

pub mod adapter;
pub mod file;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// What a run of the program left behind.
pub struct Run {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the program, which finds no Hub.
pub fn qoft(args: &[&str]) -> Run {
    qoft_with(&[], args)
}

/// Runs the program with variables of its environment.
pub fn qoft_with(env: &[(&str, &str)], args: &[&str]) -> Run {
    let temporary = temporary();
    let output = Command::new(env!("CARGO_BIN_EXE_qoft"))
        .args(args)
        .env("TMPDIR", temporary.path())
        .env("HF_HOME", temporary.path())
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env_remove("HF_TOKEN")
        .env_remove("QOFT_LOG")
        .envs(env.iter().copied())
        .output()
        .expect("the program starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder for temporary files of the program alone: what it leaves, as one does that is killed or
/// whose output fails, goes with the folder.
pub fn temporary() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A program that was started, with its folder for temporary files.
pub struct Started {
    child: Child,
    _temporary: TempDir,
}

impl Started {
    /// Starts a command without output.
    pub fn new(command: &mut Command) -> Self {
        let temporary = temporary();
        let command = command.env("TMPDIR", temporary.path());
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            child: command.spawn().expect("the program starts"),
            _temporary: temporary,
        }
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

/// The program, with signals as they are by default: in a background job of a shell, where tests may
/// run, Ctrl-C is ignored. `env` of GNU does that; where there is another one, it is as it is.
pub fn with_default_signals() -> Command {
    const SIGNALS: &str = "--default-signal=INT,TERM,HUP";
    let program = env!("CARGO_BIN_EXE_qoft");
    let probe = Command::new("env").args([SIGNALS, "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.args([SIGNALS, program]);
    command
}

/// Runs a command that has to succeed.
#[track_caller]
pub fn good(args: &[&str]) -> Run {
    let run = qoft(args);
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    run
}

/// What a command prints with `--json`: one value.
#[track_caller]
pub fn json_of(args: &[&str]) -> Value {
    let run = good(&[args, &["--json"]].concat());
    serde_json::from_str(&run.stdout).expect("stdout is one JSON value")
}

/// The loss of a model with adapters.
#[track_caller]
pub fn loss(model: &str, data: &str, adapters: &[&str]) -> f64 {
    let mut args = vec!["eval", "--model", model, "--data", data];
    for adapter in adapters {
        args.extend(["--adapter", adapter]);
    }
    json_of(&args)["loss"].as_f64().expect("a loss")
}

/// Starts the program without output.
pub fn start(args: &[&str]) -> Started {
    Started::new(with_default_signals().args(args).env_remove("QOFT_LOG"))
}

/// How a started program ends. One that does not is killed.
#[track_caller]
pub fn end(mut child: Started) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        if start.elapsed() > Duration::from_secs(120) {
            let killed = child.kill();
            panic!("it does not end (killed: {killed:?})");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of a file; none if it is not there.
pub fn lines(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().count()
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A fixture's path as an argument.
pub fn fixture(name: &str) -> String {
    arg(&qoft_fixtures::path(name)).to_owned()
}

/// Copies the files of a fixture folder into the new folder `to/name`.
pub fn copy_fixture(fixture: &str, to: &Path, name: &str) -> PathBuf {
    let folder = to.join(name);
    std::fs::create_dir(&folder).expect("a new folder");
    for entry in std::fs::read_dir(qoft_fixtures::path(fixture)).expect("the fixture") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file name");
        std::fs::copy(&path, folder.join(name)).expect("a copied file");
    }
    folder
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}
