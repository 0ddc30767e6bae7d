//! Runs that fail, and what they leave.

use std::path::{Path, PathBuf};

use qoft_peft::{AdapterFolder, Families};
use qoft_train::TrainError;
use qoft_train::train::Start;
use tempfile::TempDir;

use super::case::{Case, Recorder, adapter};

fn trained(folder: &Path) -> PathBuf {
    folder.join("adapter_model.safetensors")
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_diverging_run_stops_and_leaves_the_good_adapter_alone() {
    let mut case = Case::new("nf4_all_linear");
    case.config.learning_rate = 1e30;
    let out = TempDir::new().unwrap();
    let good = trained(out.path());
    std::fs::write(&good, "good").unwrap();
    let error = case.run(&mut Recorder::default(), out.path(), None, None);
    let error = error.expect_err("a run with values that overflow");
    let TrainError::NotFinite(at) = &error else {
        panic!("{error}")
    };
    assert_eq!((at.step, at.what, at.trained), (2, "loss", true));
    // Nothing was good after a step.
    assert_eq!(at.saved, None);
    assert_eq!(at.batch, Some((1, 1)));
    assert!(!at.rows.is_empty());
    assert!(at.source.contains("model.layers.0."), "{error}");
    assert_eq!(std::fs::read(&good).unwrap(), b"good");
    let log = std::fs::read_to_string(out.path().join("log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 1);
    assert!(out.path().join("loss.svg").is_file());
}

#[test]
fn a_run_that_diverges_late_leaves_the_last_adapter_with_a_finite_loss() {
    let mut case = Case::new("nf4_all_linear");
    // The rate is 0 in the first step, and far too high from the second one on.
    case.config.warmup_steps = 8.into();
    case.config.learning_rate = 1e30;
    let out = TempDir::new().unwrap();
    let error = case.run(&mut Recorder::default(), out.path(), None, None);
    let error = error.expect_err("a run with values that overflow");
    let TrainError::NotFinite(at) = &error else {
        panic!("{error}")
    };
    assert_eq!(at.step, 3, "{error}");
    let saved = out.path().join("emergency-1");
    assert_eq!(at.saved, Some((saved.clone(), 1)));
    let tensors = adapter(&case, &saved);
    assert!(tensors.values().flatten().all(|value| value.is_finite()));
    let again = || {
        let error = case.run(&mut Recorder::default(), out.path(), None, None);
        match error.unwrap_err() {
            TrainError::NotFinite(at) => at.saved.unwrap().0,
            other => panic!("{other}"),
        }
    };
    // The same run into the same folder saves what is there already.
    assert_eq!(again(), saved);
    assert!(!out.path().join("emergency-1-2").exists());
    // What is not the same stays.
    std::fs::write(trained(&saved), "of another run").unwrap();
    assert_eq!(again(), out.path().join("emergency-1-2"));
    assert_eq!(bytes(trained(&saved)), b"of another run");
}

#[test]
fn nothing_is_lost_if_log_curve_and_checkpoints_cannot_be_written() {
    let mut case = Case::new("nf4_cayley");
    case.config.save_steps = Some(2.into());
    let [whole, out] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    case.run(&mut Recorder::default(), whole.path(), None, None)
        .unwrap();
    // Files in the places of folders, and folders in those of files.
    std::fs::write(out.path().join("checkpoint-2"), "a file").unwrap();
    std::fs::create_dir_all(out.path().join("loss.svg").join("full")).unwrap();
    let mut recorder = Recorder::default();
    let error = case.run(&mut recorder, out.path(), None, None);
    assert!(matches!(error, Err(TrainError::LaterCheckpoint { .. })));
    std::fs::remove_file(out.path().join("checkpoint-2")).unwrap();
    std::fs::create_dir(out.path().join(".checkpoint-2.lock")).unwrap();
    let (_, summary) = case.run(&mut recorder, out.path(), None, None).unwrap();
    assert_eq!(summary.adapter.as_deref(), Some(out.path()));
    let told = |text: &str| recorder.warnings.iter().any(|w| w.contains(text));
    assert!(told("loss.svg") && told("no checkpoint after step 2"));
    // A checkpoint that failed is tried again after the next step.
    let steps = [2, 3, 4, 5, 6, 7, 8];
    let there = steps.map(|n| out.path().join(format!("checkpoint-{n}")).exists());
    assert_eq!(there, [false, true, true, false, true, false, true]);
    assert_eq!(bytes(trained(whole.path())), bytes(trained(out.path())));
}

#[test]
fn the_adapter_is_there_before_the_last_evaluation() {
    let mut case = Case::new("nf4_cayley");
    let [whole, out] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    case.run(&mut Recorder::default(), whole.path(), None, None)
        .unwrap();
    case.config.eval_steps = Some(100.into());
    case.config.eval_on_start = Some(false);
    let mut recorder = Recorder {
        stop_in_evaluation: Some(1),
        ..Recorder::default()
    };
    let data = Some(&case.dataset);
    let (_, summary) = case.run(&mut recorder, out.path(), None, data).unwrap();
    assert_eq!((summary.steps, summary.interrupted), (8, true));
    assert_eq!(summary.adapter.as_deref(), Some(out.path()));
    assert_eq!(recorder.evaluations.len(), 0);
    assert_eq!(bytes(trained(whole.path())), bytes(trained(out.path())));
}

#[test]
fn a_stop_in_an_evaluation_leaves_a_checkpoint() {
    let mut case = Case::new("nf4_cayley");
    case.config.eval_steps = Some(3.into());
    case.config.eval_on_start = Some(false);
    let out = TempDir::new().unwrap();
    let mut recorder = Recorder {
        stop_in_evaluation: Some(1),
        ..Recorder::default()
    };
    let data = Some(&case.dataset);
    let (_, summary) = case.run(&mut recorder, out.path(), None, data).unwrap();
    assert_eq!((summary.steps, summary.interrupted), (3, true));
    let checkpoint = out.path().join("checkpoint-3");
    assert_eq!(summary.checkpoint.as_ref(), Some(&checkpoint));
    // The evaluation that was missed is made up for.
    let mut rest = Recorder::default();
    case.run(&mut rest, out.path(), Some(&checkpoint), data)
        .unwrap();
    let steps: Vec<usize> = rest.evaluations.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [3, 6, 8]);
}

#[test]
fn a_finished_run_goes_on_with_other_data_as_a_new_one() {
    let mut case = Case::new("nf4_cayley");
    case.config.save_steps = Some(8.into());
    let [first, second, third] = [(); 3].map(|()| TempDir::new().unwrap());
    case.run(&mut Recorder::default(), first.path(), None, None)
        .unwrap();
    let last = first.path().join("checkpoint-8");

    // With the same data nothing is left to do.
    let mut recorder = Recorder::default();
    let (_, summary) = case
        .run(&mut recorder, second.path(), Some(&last), None)
        .unwrap();
    assert_eq!((summary.start, summary.steps), (8, 8));
    assert!(
        recorder.warnings[0].contains("all 8 steps"),
        "{:?}",
        recorder.warnings
    );
    assert_eq!(bytes(trained(first.path())), bytes(trained(second.path())));

    let dropped = case.dataset.examples.pop().unwrap();
    let mut recorder = Recorder::default();
    let (_, summary) = case
        .run(&mut recorder, third.path(), Some(&last), None)
        .unwrap();
    assert_eq!((summary.start, summary.steps), (0, 8));
    assert!(recorder.warnings[0].contains("its data was another one"));
    let mut start = Recorder::default();
    let fresh = TempDir::new().unwrap();
    case.run_from(&mut start, fresh.path(), Start::Weights(&last), None)
        .unwrap();
    assert_eq!(start.losses(), recorder.losses());

    // In the middle of a run, other data is another run.
    case.dataset.examples.push(dropped);
    case.config.save_steps = Some(4.into());
    let fourth = TempDir::new().unwrap();
    case.run(&mut Recorder::default(), fourth.path(), None, None)
        .unwrap();
    case.dataset.examples.pop();
    let middle = fourth.path().join("checkpoint-4");
    let error = case
        .run(&mut Recorder::default(), third.path(), Some(&middle), None)
        .unwrap_err();
    assert!(
        error.to_string().contains("the training data was"),
        "{error}"
    );
}

#[test]
fn a_damaged_or_foreign_optimizer_is_named() {
    let mut case = Case::new("nf4_cayley");
    case.config.save_steps = Some(4.into());
    let out = TempDir::new().unwrap();
    case.run(&mut Recorder::default(), out.path(), None, None)
        .unwrap();
    let [middle, last] = [4, 8].map(|n| out.path().join(format!("checkpoint-{n}")));
    let again = TempDir::new().unwrap();
    let resume = || {
        let mut recorder = Recorder::default();
        let result = case.run(&mut recorder, again.path(), Some(&middle), None);
        result.map(|_| ()).unwrap_err().to_string()
    };
    let (file, state) = (
        middle.join("optimizer.bin"),
        middle.join("trainer_state.json"),
    );
    let (sound, sound_state) = (bytes(file.clone()), bytes(state.clone()));
    let mut damaged = sound.clone();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let error = resume();
    assert!(
        error.contains("optimizer.bin") && error.contains("SHA-256"),
        "{error}"
    );

    // A file that somebody put there with its right digest.
    let put = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&sound_state).unwrap();
        let digest = qoft_train::train::Digest::of_file(&file).unwrap();
        json["files"]["optimizer.bin"] = serde_json::to_value(digest).unwrap();
        std::fs::write(&state, json.to_string()).unwrap();
    };
    put(&bytes(last.join("optimizer.bin")));
    let error = resume();
    assert!(
        error.contains("expected 4") && error.contains("found 8"),
        "{error}"
    );
    put(b"no optimizer");
    let error = resume();
    assert!(error.contains("optimizer.bin"), "{error}");
    // Bytes changed at random: an error, or numbers that are as good as any.
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..40 {
        let mut damaged = sound.clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random as usize % damaged.len().min(6000);
            damaged[at] = (random >> 32) as u8;
        }
        put(&damaged);
        let target = TempDir::new().unwrap();
        let _ = case.run(&mut Recorder::default(), target.path(), Some(&middle), None);
    }
    put(&sound);
    case.run(&mut Recorder::default(), again.path(), Some(&middle), None)
        .unwrap();
    assert_eq!(adapter(&case, again.path()), adapter(&case, out.path()));
    AdapterFolder::open(&last, &Families::linked().unwrap()).unwrap();
}

#[test]
fn the_same_steps_give_the_same_files() {
    let mut case = Case::new("nf4_cayley");
    case.config.save_steps = Some(4.into());
    let [first, second] = [(); 2].map(|()| TempDir::new().unwrap());
    for out in [&first, &second] {
        case.run(&mut Recorder::default(), out.path(), None, None)
            .unwrap();
    }
    for name in [
        "optimizer.bin",
        "adapter_model.safetensors",
        "trainer_state.json",
    ] {
        let [a, b] = [&first, &second].map(|out| bytes(out.path().join("checkpoint-8").join(name)));
        assert!(a == b, "{name}");
    }
}
