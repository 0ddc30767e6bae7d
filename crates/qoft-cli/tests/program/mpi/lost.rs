//! Processes that die or hang, and signals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{good_together, mpirun};
use crate::common::{arg, names};
use crate::resume::{Training, weights};

/// Seconds after which a process that does not answer is given up.
const TIMEOUT: u64 = 3;

/// A run of several processes that has a checkpoint and would go on for long.
struct Running {
    mpirun: Child,
    out: PathBuf,
    said: PathBuf,
}

impl Running {
    fn start(training: &Training, name: &str, count: usize) -> Self {
        let (out, said) = (
            training.folder(name),
            training.folder(&format!("{name}.stderr")),
        );
        let timeout = format!("--ddp-timeout={TIMEOUT}");
        let more = ["--max-steps=1000000", "--save-steps=20", "--threads=1"];
        let more = [&more[..], &["--save-total-limit=2", &timeout]].concat();
        let child = mpirun()
            .args(["-n", &count.to_string(), env!("CARGO_BIN_EXE_qoft")])
            .args(training.args(&out, &more))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).expect("a file"))
            .spawn()
            .expect("mpirun starts");
        let running = Self {
            mpirun: child,
            out,
            said,
        };
        let begun = Instant::now();
        while !running.out.join("checkpoint-20").exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{}",
                running.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// The process of a rank, which Open MPI's environment tells.
    fn process(&self, rank: usize) -> String {
        let mpirun = self.mpirun.id().to_string();
        let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
        let is_it = |process: &Path| {
            let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            // Behind the name: state and parent.
            let behind = stat.rsplit(')').next().unwrap_or_default();
            behind.split_whitespace().nth(1) == Some(&mpirun)
                && read("environ")
                    .split(|byte| *byte == 0)
                    .any(|v| v == wanted.as_bytes())
        };
        let entries = fs::read_dir("/proc").expect("processes").flatten();
        let mut processes = entries.map(|entry| entry.path());
        let process = processes.find(|process| is_it(process)).expect("a rank");
        process
            .file_name()
            .expect("a number")
            .to_string_lossy()
            .into_owned()
    }

    fn signal(&self, rank: usize, signal: &str) {
        let process = self.process(rank);
        let status = Command::new("kill").args([signal, &process]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end of all of them, which has to come soon. Returns the exit code and what was said.
    fn end(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.mpirun.try_wait().expect("a status") {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(60 + 4 * TIMEOUT) {
                let killed = self.mpirun.kill();
                panic!("it does not end (killed: {killed:?}): {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code(), self.said())
    }
}

/// Asserts that what a run left is whole: another number of processes goes on with it.
fn assert_whole(training: &Training, out: &Path) {
    let checkpoints: Vec<String> = names(out)
        .into_iter()
        .filter(|name| name.starts_with("checkpoint-"))
        .collect();
    let steps = checkpoints
        .iter()
        .filter_map(|n| n["checkpoint-".len()..].parse().ok());
    let last: usize = steps.max().expect("a checkpoint");
    let until = format!("--max-steps={}", last + 1);
    let run = good_together(
        2,
        &training.args(out, &["--resume-from=auto", "--threads=1", &until]),
    );
    assert!(
        run.stderr.contains(&format!("going on after step {last}")),
        "{}",
        run.stderr
    );
    assert!(!weights(out).is_empty());
}

#[test]
fn a_killed_process_ends_all_and_the_last_checkpoint_is_whole() {
    let training = Training::new();
    for rank in [1, 0] {
        let running = Running::start(&training, &format!("killed-{rank}"), 4);
        let out = running.out.clone();
        running.signal(rank, "-KILL");
        let (code, said) = running.end();
        assert!(code.is_none_or(|code| code != 0), "{code:?}: {said}");
        // The launcher sees it first.
        assert!(said.contains(&format!("rank {rank} ")), "{said}");
        assert_whole(&training, &out);
    }
}

#[test]
fn a_process_that_hangs_is_named_and_ends_all() {
    let training = Training::new();
    for (rank, count) in [(1, 4), (0, 2)] {
        let running = Running::start(&training, &format!("stopped-{rank}"), count);
        let out = running.out.clone();
        running.signal(rank, "-STOP");
        let (code, said) = running.end();
        assert_eq!(code, Some(1), "{said}");
        let named = format!("rank {rank} did not answer for {TIMEOUT} s");
        assert!(said.contains(&named), "{said}");
        assert_whole(&training, &out);
    }
}

#[test]
fn a_signal_to_one_of_them_ends_all_after_the_same_step() {
    let training = Training::new();
    let running = Running::start(&training, "asked", 3);
    let out = running.out.clone();
    running.signal(2, "-TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(143), "{said}");
    assert!(said.contains("stopped after step"), "{said}");
    assert!(!out.join("adapter_model.safetensors").exists());
    assert!(
        !out.join(".qoft-lock").exists(),
        "{:?} {}",
        names(&out),
        arg(&out)
    );
    assert_whole(&training, &out);
}
