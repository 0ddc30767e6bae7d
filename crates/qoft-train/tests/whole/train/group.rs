//! Trainings of several processes, which are threads here.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use qoft_core::Checkpoint;
use qoft_train::TrainError;
use qoft_train::group::{Alone, Group, GroupError};
use qoft_train::train::{Digest, Observer, RunFolder, Start, StepReport, Summary, Trainer};
use serde_json::Value;
use tempfile::TempDir;

use super::case::Case;

/// What the threads of a group share: what each says, and slices by receiver.
#[derive(Debug)]
struct Shared {
    barrier: Barrier,
    said: Mutex<Vec<Vec<u8>>>,
    slices: Mutex<Vec<Vec<Vec<f32>>>>,
}

#[derive(Debug)]
struct Member {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

impl Group for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        self.shared.said.lock().unwrap()[self.rank] = own.to_vec();
        self.shared.barrier.wait();
        let all = self.shared.said.lock().unwrap().clone();
        self.shared.barrier.wait();
        Ok(all)
    }

    fn exchange(&self, to: &[&[f32]], from: &[usize]) -> Result<Vec<Vec<f32>>, GroupError> {
        let own = to.iter().map(|slice| slice.to_vec()).collect();
        self.shared.slices.lock().unwrap()[self.rank] = own;
        self.shared.barrier.wait();
        let all = self.shared.slices.lock().unwrap();
        let received: Vec<Vec<f32>> = all.iter().map(|sent| sent[self.rank].clone()).collect();
        drop(all);
        self.shared.barrier.wait();
        let lengths: Vec<usize> = received.iter().map(Vec::len).collect();
        assert_eq!(lengths, from);
        Ok(received)
    }
}

/// Asks to stop after a step.
struct StopAfter<'a>(Option<usize>, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        if self.0 == Some(report.step) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// One process of a run into `out`, which may be asked to stop after a step.
fn run(
    case: &Case,
    group: &dyn Group,
    out: &Path,
    start: Start,
    stop_after: Option<usize>,
) -> Result<Summary, TrainError> {
    let base = Digest::of_checkpoint(&Checkpoint::open(&case.model_folder).unwrap())?;
    let folder = match group.rank() {
        0 => RunFolder::open(out)?,
        _ => RunFolder::of_another(out),
    };
    let mut trainer = Trainer::new(&case.config, &case.oft_config, &case.dataset, &folder);
    trainer.base = Some(&base);
    trainer.eval_dataset = Some(&case.dataset);
    trainer.start = start;
    trainer.group = group;
    let stop = AtomicBool::new(false);
    let mut events = StopAfter(stop_after, &stop);
    let (_, summary) = trainer.run(case.model(), &mut events, &stop)?;
    Ok(summary)
}

/// A run of `size` threads, of which each has the case that `of` gives it.
fn together<T: Send>(size: usize, of: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Shared {
        barrier: Barrier::new(size),
        said: Mutex::new(vec![Vec::new(); size]),
        slices: Mutex::new(vec![Vec::new(); size]),
    });
    std::thread::scope(|scope| {
        let members: Vec<_> = (0..size)
            .map(|rank| {
                let (shared, of) = (shared.clone(), &of);
                scope.spawn(move || of(&Member { rank, size, shared }))
            })
            .collect();
        members.into_iter().map(|m| m.join().unwrap()).collect()
    })
}

fn case() -> Case {
    let mut case = Case::new("nf4_all_linear");
    case.config.batch_size = 1;
    case.config.gradient_accumulation_steps = 6;
    case.config.max_steps = Some(7);
    case.config.shuffle = true;
    case.config.eval_steps = Some(3.into());
    case.config.save_steps = Some(3.into());
    case.config.neftune_noise_alpha = Some(5.0);
    case
}

/// The adapter and the log without times.
fn left(out: &Path) -> (Vec<u8>, Vec<Value>) {
    let adapter = std::fs::read(out.join("adapter_model.safetensors")).unwrap();
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let rows = log.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        let keys = row.as_object_mut().unwrap();
        keys.retain(|key, _| !["seconds", "tokens_per_second"].contains(&key.as_str()));
        row
    });
    (adapter, rows.collect())
}

#[test]
fn any_number_of_processes_gives_the_same_bytes() {
    let one = TempDir::new().unwrap();
    run(&case(), &Alone, one.path(), Start::New, None).unwrap();
    let expected = left(one.path());
    for size in [2, 3, 5] {
        let out = TempDir::new().unwrap();
        for result in together(size, |m| run(&case(), m, out.path(), Start::New, None)) {
            result.unwrap();
        }
        assert!(left(out.path()) == expected, "{size} processes");
        // Another number goes on from a checkpoint.
        let on = TempDir::new().unwrap();
        let checkpoint = out.path().join("checkpoint-3");
        let start = Start::Checkpoint(&checkpoint);
        for result in together(7 - size, |m| run(&case(), m, on.path(), start, None)) {
            result.unwrap();
        }
        assert!(
            left(on.path()).0 == expected.0,
            "{size} processes, going on"
        );
    }
}

#[test]
fn one_that_is_asked_to_stop_stops_all_after_the_same_step() {
    let out = TempDir::new().unwrap();
    let results = together(3, |member| {
        let stop_after = (member.rank == 2).then_some(4);
        run(&case(), member, out.path(), Start::New, stop_after).unwrap()
    });
    for summary in results {
        assert_eq!((summary.steps, summary.interrupted), (4, true));
    }
    assert!(out.path().join("checkpoint-4").exists());
}

#[test]
fn one_with_something_else_is_named_by_all() {
    let change = |what: &str| {
        let mut case = case();
        match what {
            "rate" => case.config.learning_rate = 0.5,
            "seed" => case.config.seed = 7,
            _ => drop(case.dataset.examples.pop()),
        }
        case
    };
    for (what, says) in [
        ("rate", "`learning_rate` is 0.5 there"),
        ("seed", "`seed` is 7 there, and 42 on rank 0"),
        ("data", "the training data is"),
    ] {
        let out = TempDir::new().unwrap();
        let results = together(3, |member| {
            let case = match member.rank {
                1 => change(what),
                _ => case(),
            };
            run(&case, member, out.path(), Start::New, None)
        });
        for result in results {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("rank 1 is not doing the same"), "{error}");
            assert!(error.contains(says), "{error}");
        }
        assert!(!out.path().join("log.jsonl").exists());
    }
}

#[test]
fn one_that_begins_elsewhere_is_named() {
    let (trained, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    run(&case(), &Alone, trained.path(), Start::New, None).unwrap();
    let results = together(2, |member| {
        let start = match member.rank {
            0 => Start::New,
            _ => Start::Weights(trained.path()),
        };
        run(&case(), member, out.path(), start, None)
    });
    for result in results {
        let error = result.unwrap_err().to_string();
        let says = "the digest of the first parameters is";
        assert!(error.contains("rank 1") && error.contains(says), "{error}");
    }
}

/// A loss that is no number is met by all of them; the first one tells which rows it is of.
#[test]
fn a_loss_that_is_no_number_ends_all() {
    let mut broken = case();
    broken.config.learning_rate = 1e30;
    broken.config.max_grad_norm = 0.0;
    let says = |result: Result<Summary, TrainError>| result.unwrap_err().to_string();
    let one = TempDir::new().unwrap();
    let expected = says(run(&broken, &Alone, one.path(), Start::New, None));
    let out = TempDir::new().unwrap();
    let results = together(2, |member| {
        let mut broken = case();
        broken.config.learning_rate = 1e30;
        broken.config.max_grad_norm = 0.0;
        says(run(&broken, member, out.path(), Start::New, None))
    });
    let without_folder = |text: &str| {
        text.split("; the adapter as it was")
            .next()
            .map(str::to_owned)
    };
    for found in &results {
        assert_eq!(without_folder(found), without_folder(&expected));
    }
}
