//! Runs that go on, and those that must not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Run, arg, fixture, good, lines, names, qoft, start, wait_until};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

/// A folder with data, and a training of 8 steps.
pub struct Training {
    work: TempDir,
    model: String,
    pub data: PathBuf,
}

impl Training {
    pub fn new() -> Self {
        Self::of(MODEL, ROWS)
    }

    /// Of another model, on other rows.
    pub fn of(model: &str, rows: &str) -> Self {
        let work = tempdir().expect("a folder");
        let data = work.path().join("rows.jsonl");
        fs::copy(fixture(rows), &data).expect("a copy");
        Self {
            model: fixture(model),
            data,
            work,
        }
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    pub fn args<'a>(&'a self, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let args = [
            "train",
            "--model",
            &self.model,
            "--data",
            arg(&self.data),
            "--output",
            arg(output),
            "--target-modules=all-linear",
            "--learning-rate=1e-2",
            "--batch-size=2",
            "--max-steps=8",
            "--save-steps=4",
        ];
        // Flags that are given replace these.
        let name = |flag: &str| flag.split('=').next().map(str::to_owned);
        let replaced =
            |flag: &&str| flag.contains('=') && more.iter().any(|m| name(m) == name(flag));
        let args = args.into_iter().filter(|flag| !replaced(flag));
        args.chain(more.iter().copied()).collect()
    }

    pub fn train(&self, output: &Path, more: &[&str]) -> Run {
        qoft(&self.args(output, more))
    }

    /// Trains to the end, and returns what standard error says.
    #[track_caller]
    pub fn good(&self, output: &Path, more: &[&str]) -> String {
        let run = self.train(output, more);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    }

    /// Trains, which has to fail, and returns what standard error says.
    #[track_caller]
    pub fn bad(&self, output: &Path, more: &[&str]) -> String {
        let run = self.train(output, more);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        run.stderr
    }
}

pub fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("adapter_model.safetensors")).expect("an adapter")
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("a file");
}

/// What a run that was killed after its first checkpoint looks like.
fn cut_off(folder: &Path) {
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.svg",
    ] {
        fs::remove_file(folder.join(name)).expect("a file");
    }
    fs::remove_dir_all(folder.join("checkpoint-8")).expect("a folder");
    fs::write(folder.join(".qoft-lock"), "process 1\n").expect("a file");
    fs::write(folder.join(".qoft.tmp-a1B2c3"), "half").expect("a file");
    fs::create_dir(folder.join(".checkpoint-8.partial-a1B2c3")).expect("a folder");
}

const COMPLETE: [&str; 9] = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "checkpoint-4",
    "checkpoint-8",
    "log.jsonl",
    "loss.svg",
    "report.html",
    "training_args.json",
];

#[test]
fn the_same_command_goes_on_with_what_a_killed_run_left() {
    let training = Training::new();
    let [whole, parts] = ["whole", "parts"].map(|name| training.folder(name));
    training.good(&whole, &[]);
    training.good(&parts, &[]);
    cut_off(&parts);
    let differs = training.bad(&parts, &["--seed=7"]);
    assert!(
        differs.contains("`seed` was not given and is 7"),
        "{differs}"
    );
    let says = training.good(&parts, &["--logging-steps=2"]);
    assert!(
        says.contains("checkpoint-4") && says.contains("after step 4 of 8"),
        "{says}"
    );
    assert!(says.contains("4 steps after the 4 before"), "{says}");
    assert_eq!(weights(&parts), weights(&whole));
    assert_eq!(names(&parts), COMPLETE);
    let again = training.bad(&parts, &[]);
    assert!(again.contains("this run is done"), "{again}");
    let longer = "--resume-from last with more steps";
    assert!(again.contains(longer), "{again}");
    let short = training.folder("short");
    let without = ["--save-strategy=no", "--max-steps=1"];
    training.good(&short, &without);
    let again = training.bad(&short, &without);
    assert!(
        again.contains("this run is done") && !again.contains(longer),
        "{again}"
    );
    let other = training.bad(&parts, &["--seed=7"]);
    assert!(other.contains("another run: `seed` was"), "{other}");

    // Killed in the last evaluation: the adapter is there, the curve is not.
    fs::remove_file(parts.join("loss.svg")).expect("a curve");
    fs::write(parts.join(".qoft-lock"), "process 1\n").expect("a file");
    let says = training.good(&parts, &[]);
    assert!(says.contains("checkpoint-8"), "{says}");
    assert_eq!(weights(&parts), weights(&whole));
    assert_eq!(names(&parts), COMPLETE);

    // Killed before the first checkpoint.
    cut_off(&parts);
    fs::remove_dir_all(parts.join("checkpoint-4")).expect("a folder");
    training.good(&parts, &[]);
    assert_eq!(weights(&parts), weights(&whole));
    assert_eq!(names(&parts), COMPLETE);
}

#[test]
fn a_run_goes_on_by_its_folder_alone() {
    let training = Training::new();
    let out = training.folder("out");
    training.good(&out, &["--module-dropout=0"]);
    let (whole, log) = (weights(&out), out.join("log.jsonl"));
    let rows = |text: &str| -> Vec<String> {
        let first = text.lines().take(4);
        first.map(str::to_owned).collect()
    };
    let before = rows(&fs::read_to_string(&log).expect("a log"));
    cut_off(&out);
    let run = qoft(&["train", "--resume-from", arg(&out)]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(weights(&out), whole);
    let text = fs::read_to_string(&log).expect("a log");
    assert_eq!(
        rows(&text),
        before,
        "rows of steps that were done change in no byte"
    );
    assert_eq!(text.lines().count(), 8);
    // Of a checkpoint in it, too.
    cut_off(&out);
    let checkpoint = out.join("checkpoint-4");
    let run = qoft(&["train", "--resume-from", arg(&checkpoint)]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(weights(&out), whole);

    cut_off(&out);
    training.good(&out, &["--resume-from=last"]);
    assert_eq!(weights(&out), whole);
    cut_off(&out);
    training.good(&out, &["--resume-from=auto"]);
    assert_eq!(weights(&out), whole);

    let new = training.folder("new");
    let none = training.bad(&new, &["--resume-from=last"]);
    assert!(none.contains("no checkpoint-N"), "{none}");
    assert!(!new.exists());
    training.good(&new, &["--resume-from=auto"]);
    assert_eq!(weights(&new), whole);
    // The settings are a file of options.
    let config = out.join("training_args.json");
    let third = training.folder("third");
    let run = qoft(&["train", "--config", arg(&config), "--output", arg(&third)]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(weights(&third), whole);
}

#[test]
fn a_run_that_is_made_longer_says_which_learning_rates_it_has() {
    let training = Training::new();
    for (scheduler, changes) in [("linear", true), ("cosine", true), ("constant", false)] {
        let [out, longer] = [scheduler, "longer"].map(|name| training.folder(name));
        let kind = format!("--lr-scheduler={scheduler}");
        training.good(&out, &[&kind]);
        let from = out.join("checkpoint-4");
        let resume = ["--resume-from", arg(&from), &kind];
        let same = training.good(&longer, &resume);
        assert!(!same.contains("warning"), "{same}");
        fs::remove_dir_all(&longer).expect("a folder");
        let says = training.good(&longer, &[&resume[..], &["--max-steps=12"]].concat());
        let warns = says.contains(
            "its run had 8 steps, this one has 12: from step 5 on the learning rates are those of the \
             new length",
        );
        assert_eq!(warns, changes, "{says}");
        fs::remove_dir_all(&longer).expect("a folder");
    }
}

#[test]
fn another_run_does_not_go_on() {
    let training = Training::new();
    let out = training.folder("out");
    training.good(&out, &[]);
    let checkpoint = out.join("checkpoint-4");
    let from = ["--resume-from", arg(&checkpoint)];
    let other = training.folder("other");
    for (more, says) in [
        (
            &["--coft", "--eps=1e-3"][..],
            "the adapter's `coft` was false and is true",
        ),
        (
            &["--use-cayley-neumann=false"],
            "`use_cayley_neumann` was true and is false",
        ),
        (
            &["--module-dropout=0.5"],
            "`module_dropout` was 0.0 and is 0.5",
        ),
        (
            &["--learning-rate=2e-2"],
            "`learning_rate` was 0.01 and is 0.02",
        ),
        (&["--seed=1"], "`seed` was 42 and is 1"),
        (&["--max-steps=3"], "after step 4, but the run has 3 steps"),
    ] {
        let run = training.train(&other, &[&from[..], more].concat());
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        assert!(!other.exists(), "{more:?}");
    }
    let data = fs::read_to_string(&training.data).expect("data");
    let (first, rest) = data.split_once('\n').expect("rows");
    fs::write(&training.data, format!("{rest}{first}\n")).expect("data");
    let says = training.bad(&other, &from);
    assert!(says.contains("the training data was"), "{says}");
    assert!(!other.exists());
    // Nor in the folder of a run that is done.
    let says = training.bad(&out, &["--resume-from=last"]);
    assert!(says.contains("the training data was"), "{says}");
    assert!(!says.contains("a new run begins"), "{says}");
    fs::write(&training.data, data).expect("data");

    let state = checkpoint.join("trainer_state.json");
    edit(&state, |state| state["step"] = 1_000_000.into());
    let says = training.bad(&other, &from);
    assert!(
        says.contains("expected 4") && says.contains("found 1000000"),
        "{says}"
    );
    fs::write(&state, "{").expect("a file");
    let says = training.bad(&other, &from);
    assert!(says.contains("trainer_state.json"), "{says}");
    assert!(!other.exists());
}

#[test]
fn behind_a_damaged_checkpoint_is_another_one() {
    let training = Training::new();
    let out = training.folder("out");
    training.good(&out, &["--save-steps=2"]);
    let whole = weights(&out);
    let [second, third, last] = [4, 6, 8].map(|step| out.join(format!("checkpoint-{step}")));
    for damaged in [&third, &last] {
        let file = damaged.join("optimizer.bin");
        let mut bytes = fs::read(&file).expect("a file");
        *bytes.last_mut().expect("bytes") ^= 1;
        fs::write(&file, bytes).expect("a file");
    }
    let resume = ["--save-steps=2", "--resume-from=last"];
    let says = training.bad(&out, &resume);
    let way_out = format!("--resume-from {}", second.display());
    assert!(
        says.contains("optimizer.bin") && says.contains(&way_out),
        "{says}"
    );
    assert!(
        says.contains(&format!("remove {}", last.display())),
        "{says}"
    );
    for damaged in [&third, &last] {
        fs::remove_dir_all(damaged).expect("a folder");
    }
    training.good(&out, &["--save-steps=2", "--resume-from", arg(&second)]);
    assert_eq!(weights(&out), whole);
}

#[test]
fn an_adapter_is_no_checkpoint_but_something_to_start_from() {
    let training = Training::new();
    let (first, second) = (training.folder("first"), training.folder("second"));
    training.good(&first, &["--save-steps=100", "--oft-block-size=16"]);
    let says = training.bad(&second, &["--resume-from", arg(&first)]);
    assert!(
        says.contains("checkpoint-N") && says.contains("--start-from"),
        "{says}"
    );
    let missing = training.folder("missing");
    let says = training.bad(&second, &["--resume-from", arg(&missing)]);
    assert!(says.contains("no such folder"), "{says}");
    // Without any other option, too.
    for (folder, reason) in [(&missing, "no such folder"), (&training.data, "no folder")] {
        let run = qoft(&["train", "--resume-from", arg(folder)]);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
        assert!(!run.stderr.contains("--model"), "{}", run.stderr);
    }
    let emergency = training.folder("emergency-3-2");
    fs::create_dir(&emergency).expect("a folder");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(first.join(name), emergency.join(name)).expect("a copy");
    }
    let run = qoft(&["train", "--resume-from", arg(&emergency)]);
    let says = format!("--start-from {}", emergency.display());
    assert!(run.stderr.contains("when it failed"), "{}", run.stderr);
    assert!(run.stderr.contains(&says), "{}", run.stderr);
    let run = qoft(&["train", "--resume-from", arg(training.work.path())]);
    assert!(run.stderr.contains(&says), "{}", run.stderr);

    let loss = |folder: &Path, step: usize| {
        let log = fs::read_to_string(folder.join("log.jsonl")).expect("a log");
        let row = log.lines().nth(step).expect("a row");
        serde_json::from_str::<Value>(row).expect("JSON")["loss"].as_f64()
    };
    // The block size is that of the adapter.
    training.good(&second, &["--start-from", arg(&first)]);
    assert!(loss(&second, 0) < loss(&first, 0));
    let third = training.folder("third");
    let other = ["--start-from", arg(&first), "--oft-block-size=32"];
    let says = training.bad(&third, &other);
    assert!(says.contains("model.layers.0"), "{says}");
    let both = ["--start-from", arg(&first), "--resume-from=auto"];
    assert_eq!(training.train(&third, &both).code, Some(2));
}

#[test]
fn one_run_at_a_time_has_a_folder() {
    let training = Training::new();
    let out = training.folder("out");
    let args = training.args(&out, &["--max-steps=100000", "--save-steps=100000"]);
    let mut child = start(&args);
    // From the first moment, before the model is loaded.
    wait_until("a lock", || lines(&out.join(".qoft-lock")) == 1);
    let says = training.bad(&out, &[]);
    let holder = format!("process {}", child.id());
    assert!(
        says.contains("another run") && says.contains(&holder),
        "{says}"
    );
    wait_until("a step", || lines(&out.join("log.jsonl")) > 0);
    child.kill().expect("a kill");
    child.wait().expect("an end");
    // Its lock is nobody's.
    let run = qoft(&["train", "--resume-from", arg(&out), "--max-steps=1"]);
    assert!(run.stderr.contains("checkpoint-N"), "{}", run.stderr);
}

#[test]
fn a_finished_run_without_checkpoints_says_so() {
    let training = Training::new();
    let out = training.folder("quickstart");
    good(&["quickstart", "--max-steps=1", "--output", arg(&out)]);
    let adapter = out.join("adapter");
    for from in ["last", "auto"] {
        let args = training.args(&adapter, &["--resume-from", from]);
        let run = qoft(&args);
        assert_eq!(run.code, Some(1));
        assert!(
            run.stderr.contains("is finished") && run.stderr.contains("--start-from"),
            "{}",
            run.stderr
        );
    }
}
