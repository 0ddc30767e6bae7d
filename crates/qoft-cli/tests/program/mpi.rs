//! Several processes, started by `mpirun` on this machine.

mod lost;
mod preferred;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Run, arg, fixture, lines, names, qoft, temporary};
use crate::resume::{Training, weights};
use serde_json::Value;

/// Longer than any of these runs takes.
const LIMIT: Duration = Duration::from_secs(300);

/// `mpirun` as these tests call it: more processes than processors, and as root in a container.
pub fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command
        .arg("--oversubscribe")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env_remove("QOFT_LOG");
    command
}

/// Runs processes that are given as (number, program, arguments).
pub fn started(parts: &[(usize, &str, &[&str])]) -> Run {
    let temporary = temporary();
    let (out, err) = (
        temporary.path().join("stdout"),
        temporary.path().join("stderr"),
    );
    let mut command = mpirun();
    for (at, (count, program, args)) in parts.iter().enumerate() {
        if at > 0 {
            command.arg(":");
        }
        command
            .args(["-n", &count.to_string(), program])
            .args(*args);
    }
    let file = |path: &Path| Stdio::from(fs::File::create(path).expect("a file"));
    let command = command.stdout(file(&out)).stderr(file(&err));
    let mut child = command.stdin(Stdio::null()).spawn().expect("mpirun starts");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if begun.elapsed() > LIMIT {
            let killed = child.kill();
            panic!("it does not end (killed: {killed:?})");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |path: &Path| fs::read_to_string(path).expect("its output");
    Run {
        code: status.code(),
        stdout: read(&out),
        stderr: read(&err),
    }
}

/// Runs the program in so many processes.
pub fn together(count: usize, args: &[&str]) -> Run {
    started(&[(count, env!("CARGO_BIN_EXE_qoft"), args)])
}

/// Runs the program in so many processes, which have to succeed.
#[track_caller]
pub fn good_together(count: usize, args: &[&str]) -> Run {
    let run = together(count, args);
    assert_eq!(run.code, Some(0), "{count}: {}", run.stderr);
    run
}

/// The log of a run, without what the time of day is in.
pub fn log(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("JSON");
        let keys = row.as_object_mut().expect("an object");
        keys.retain(|key, _| !["seconds", "tokens_per_second"].contains(&key.as_str()));
        row
    };
    text.lines().map(row).collect()
}

/// Asserts that two runs left the same: adapter, log and checkpoints, and no other files.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path, what: &str) {
    assert_eq!(names(one), names(other), "{what}");
    assert!(weights(one) == weights(other), "{what}: adapters");
    assert_eq!(log(one), log(other), "{what}");
    for name in names(one).iter().filter(|n| n.starts_with("checkpoint-")) {
        let (one, other) = (one.join(name), other.join(name));
        assert_eq!(names(&one), names(&other), "{what}: {name}");
        for file in names(&one) {
            let [a, b] = [&one, &other].map(|folder| fs::read(folder.join(&file)).expect("a file"));
            assert!(a == b, "{what}: {name}/{file}");
        }
    }
}

/// Options that leave little alike where something is added up in another order, or drawn elsewhere.
const VARIED: [&str; 6] = [
    "--module-dropout=0.3",
    "--neftune-noise-alpha=5",
    "--coft",
    "--eval-steps=3",
    "--eval-batch-size=3",
    "--threads=1",
];

#[test]
fn processes_give_the_bytes_of_one_with_as_many_batches() {
    let training = Training::new();
    let data = format!("--eval-data={}", arg(&training.data));
    let varied = [&VARIED[..], &[&data]].concat();
    for (count, own, one) in [(2, 1, 2), (4, 1, 4), (3, 2, 6)] {
        // 16 rows of one: the last step of an epoch has fewer batches than there are processes.
        let more = [&varied[..], &["--batch-size=1", "--max-steps=9"]].concat();
        let (alone, several) = (
            training.folder(&format!("alone-{count}")),
            training.folder(&format!("several-{count}")),
        );
        let accumulated = format!("--gradient-accumulation-steps={one}");
        training.good(&alone, &[&more[..], &[&accumulated]].concat());
        let accumulated = format!("--gradient-accumulation-steps={own}");
        let more = [&more[..], &[&accumulated]].concat();
        let run = good_together(count, &training.args(&several, &more));
        assert_same(&alone, &several, &format!("{count} processes"));
        assert_eq!(run.stderr.matches("trainable params").count(), 1);
    }
}

#[test]
fn a_run_goes_on_in_any_number_of_processes() {
    let training = Training::new();
    let whole = training.folder("whole");
    let more = [&VARIED[..3], &["--threads=1", "--resume-from=auto"]].concat();
    good_together(4, &training.args(&whole, &more));
    for count in [1, 2, 3] {
        let out = training.folder(&format!("on-{count}"));
        let first = [&more[..], &["--max-steps=4"]].concat();
        good_together(4, &training.args(&out, &first));
        for name in ["adapter_model.safetensors", "adapter_config.json"] {
            fs::remove_file(out.join(name)).expect("a file");
        }
        let run = good_together(count, &training.args(&out, &more));
        assert!(
            run.stderr.contains("a step of this run has 4 batches"),
            "{}",
            run.stderr
        );
        // The rates of the first part were those of a shorter run.
        assert_eq!(log(&out).len(), log(&whole).len());
    }
    // With rates that do not depend on the length all is as in a run without a break.
    let constant = [&more[..], &["--lr-scheduler=constant"]].concat();
    let (whole, parts) = (training.folder("constant"), training.folder("parts"));
    good_together(4, &training.args(&whole, &constant));
    good_together(
        2,
        &training.args(
            &parts,
            &[
                &constant[..],
                &["--max-steps=4", "--gradient-accumulation-steps=2"],
            ]
            .concat(),
        ),
    );
    let accumulated = [&constant[..], &["--gradient-accumulation-steps=2"]].concat();
    good_together(3, &training.args(&parts, &accumulated));
    assert!(weights(&whole) == weights(&parts));
    assert_eq!(log(&whole), log(&parts));
}

#[test]
fn evaluations_are_shared_and_said_once() {
    let (model, rows) = (
        fixture("models/llama_nf4"),
        fixture("train/nf4_all_linear/rows.jsonl"),
    );
    let args = [
        "eval",
        "--model",
        &model,
        "--data",
        &rows,
        "--batch-size=3",
        "--threads=1",
        "--json",
    ];
    let (alone, several) = (qoft(&args), good_together(4, &args));
    assert_eq!(alone.stdout, several.stdout);
}

#[test]
fn processes_with_something_else_are_named() {
    let training = Training::new();
    let (program, out) = (env!("CARGO_BIN_EXE_qoft"), training.folder("out"));
    let args = training.args(&out, &["--threads=1"]);
    let fails = |other: (usize, &str, &[&str]), says: &[&str]| {
        let run = started(&[(1, program, &args), other]);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        for says in says {
            assert!(run.stderr.contains(says), "{says}: {}", run.stderr);
        }
        assert!(!out.exists(), "{says:?}");
    };

    let text = fs::read_to_string(&training.data).expect("rows");
    let fewer: Vec<&str> = text.lines().take(15).collect();
    let other_data = training.folder("fewer.jsonl");
    fs::write(&other_data, fewer.join("\n")).expect("a file");
    let data = arg(&training.data);
    let with_data = |path| args.iter().map(move |a| if *a == data { path } else { *a });
    let other: Vec<&str> = with_data(arg(&other_data)).collect();
    fails(
        (1, program, &other),
        &[
            "rank 1 is not doing the same",
            "training data is",
            "(15 rows) there",
            "(16 rows) on rank 0",
        ],
    );
    let other = [&args[..], &["--seed=7"]].concat();
    fails(
        (2, program, &other),
        &["rank 1 is not", "`seed` is 7 there, and 42 on rank 0"],
    );
    let other = [&args[..args.len() - 1], &["--threads=2"]].concat();
    fails(
        (1, program, &other),
        &["rank 1", "the number of threads is 2 there"],
    );
    let missing: Vec<&str> = with_data("nowhere.jsonl").collect();
    fails(
        (1, program, &missing),
        &["error: rank 1: ", "nowhere.jsonl"],
    );

    // Bytes behind its end do not change what a program does.
    let changed = training.folder("qoft");
    let mut bytes = fs::read(program).expect("the program");
    bytes.push(0);
    fs::write(&changed, bytes).expect("a file");
    let mode = fs::metadata(program).expect("the program").permissions();
    fs::set_permissions(&changed, mode).expect("a program");
    fails(
        (1, arg(&changed), &args),
        &["rank 1 is not", "the program is"],
    );
}

#[test]
fn what_several_processes_would_do_again_and_again_is_refused() {
    let training = Training::new();
    let out = training.folder("merged");
    let (model, adapter) = (fixture("models/llama_nf4"), fixture("adapters/all_linear"));
    for command in [
        &[
            "merge",
            "--model",
            &model,
            "--adapter",
            &adapter,
            "--output",
            arg(&out),
        ][..],
        &["quickstart", "--output", arg(&out)],
        &["inspect", &model],
    ] {
        let run = together(2, command);
        assert_eq!(run.code, Some(1), "{command:?}: {}", run.stderr);
        let said = run
            .stderr
            .matches("error: this command runs in one process")
            .count();
        assert_eq!(said, 1, "{command:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !out.exists(), "{command:?}");
    }
    // What is wrong with arguments is said once, too.
    let run = together(3, &["train", "--modell", "x"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert_eq!(run.stderr.matches("--modell").count(), 1, "{}", run.stderr);
    let estimate = training.args(&out, &["--dry-run"]);
    assert_eq!(together(2, &estimate).code, Some(1));
}

#[test]
fn one_process_of_a_launcher_is_as_any_other() {
    let training = Training::new();
    let (plain, launched) = (training.folder("plain"), training.folder("launched"));
    training.good(&plain, &["--threads=1"]);
    good_together(1, &training.args(&launched, &["--threads=1"]));
    assert_same(&plain, &launched, "one process");
    assert_eq!(lines(&plain.join("log.jsonl")), 8);
}
