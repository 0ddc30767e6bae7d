//! What a run leaves behind: interrupted, resumed, evaluated.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use qoft_core::ops::is_far;
use qoft_core::{Checkpoint, default_device};
use qoft_train::TrainError;
use qoft_train::data::{Dataset, Example};
use qoft_train::train::{ActivationDtype, Digest, RunFolder, Trainer};
use serde_json::Value;
use tempfile::TempDir;

use super::case::{Case, Recorder, adapter, cosine, load, tensors};

#[test]
fn an_interrupted_run_goes_on_as_if_it_had_not_been() {
    let mut case = Case::new("nf4_accumulate");
    case.config.shuffle = true;
    let [whole, parts] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut straight = Recorder::default();
    case.run(&mut straight, whole.path(), None, None).unwrap();

    let mut first = Recorder {
        stop_at: Some(3),
        ..Recorder::default()
    };
    let (_, summary) = case.run(&mut first, parts.path(), None, None).unwrap();
    let checkpoint = parts.path().join("checkpoint-3");
    assert!(summary.interrupted);
    assert_eq!(summary.checkpoint.as_deref(), Some(checkpoint.as_path()));
    assert!(!parts.path().join("adapter_model.safetensors").exists());

    let mut second = Recorder::default();
    let (_, summary) = case
        .run(&mut second, parts.path(), Some(&checkpoint), None)
        .unwrap();
    assert_eq!((summary.steps, summary.interrupted), (8, false));
    let losses = [first.losses(), second.losses()].concat();
    // On a GPU a tensor that was loaded may get another kernel than one that was computed, which
    // rounds otherwise.
    let exact = default_device().unwrap() == Device::flex();
    let tolerance = if exact { 0.0 } else { 1e-5 };
    assert_eq!(losses.len(), straight.losses().len());
    for (loss, expected) in losses.iter().zip(straight.losses()) {
        assert!((loss - expected).abs() <= tolerance, "{loss} {expected}");
    }
    let trained = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert!(!exact || trained(whole.path()) == trained(parts.path()));

    let log = std::fs::read_to_string(parts.path().join("log.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64())
        .map(Option::unwrap)
        .collect();
    assert_eq!(steps, (1..=8).collect::<Vec<_>>());
    assert!(parts.path().join("loss.svg").is_file());

    let again = case.run(&mut Recorder::default(), parts.path(), None, None);
    assert!(matches!(again, Err(TrainError::LaterCheckpoint { .. })));
}

/// An expert that no token meets has no gradient, and its moments begin when the first one does.
#[test]
fn a_run_goes_on_in_which_some_experts_had_no_token() {
    let mut case = Case::new("olmoe_router");
    case.oft_config.common.target_modules = Some(["experts.*.down_proj"].into());
    case.oft_config.common.modules_to_save = None;
    case.config.batch_size = 1;
    let few = Example::new(vec![5, 6], vec![5, 6]);
    case.dataset = Dataset::new([few].into_iter().chain(case.dataset.examples));
    let [whole, parts] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut recorder = Recorder::default();
    case.run(&mut recorder, whole.path(), None, None).unwrap();
    let mut first = Recorder {
        stop_at: Some(1),
        ..Recorder::default()
    };
    case.run(&mut first, parts.path(), None, None).unwrap();
    let checkpoint = parts.path().join("checkpoint-1");
    let turned = |folder: &Path| {
        let tensors = adapter(&case, folder).into_values();
        tensors
            .filter(|values| values.iter().any(|&v| v != 0.0))
            .count()
    };
    // Of 2 layers with 8 experts each, of which a token meets 3.
    assert!(turned(&checkpoint) <= 12);
    assert_eq!(turned(whole.path()), 16);
    let mut rest = Recorder::default();
    case.run(&mut rest, parts.path(), Some(&checkpoint), None)
        .unwrap();
    assert_eq!(rest.losses()[..], recorder.losses()[1..]);
    assert_eq!(adapter(&case, parts.path()), adapter(&case, whole.path()));
}

#[test]
fn gradient_checkpointing_changes_no_number() {
    let mut case = Case::new("nf4_accumulate");
    let run = |case: &Case| {
        let (out, mut recorder) = (TempDir::new().unwrap(), Recorder::default());
        case.run(&mut recorder, out.path(), None, None).unwrap();
        let norms: Vec<f64> = recorder.reports.iter().map(|r| r.grad_norm).collect();
        (recorder.losses(), norms, adapter(case, out.path()))
    };
    let plain = run(&case);
    case.config.gradient_checkpointing = true;
    assert_eq!(run(&case), plain);

    // Rounded activations: nearly the same run, with and without checkpointing.
    case.config.activation_dtype = ActivationDtype::Bf16;
    for checkpointing in [false, true] {
        case.config.gradient_checkpointing = checkpointing;
        if !checkpointing && is_far(&default_device().unwrap()) {
            let (out, mut recorder) = (TempDir::new().unwrap(), Recorder::default());
            let error = case.run(&mut recorder, out.path(), None, None).unwrap_err();
            assert!(
                error.to_string().contains("`activation_dtype`: GPUs"),
                "{error}"
            );
            continue;
        }
        let (losses, _, adapter) = run(&case);
        assert_eq!(
            losses[0], plain.0[0],
            "the first loss is before any gradient"
        );
        for (loss, expected) in losses.iter().zip(&plain.0) {
            assert!((loss - expected).abs() < 2e-3, "{loss} {expected}");
        }
        let similarity = cosine(&adapter, &plain.2);
        println!("checkpointing {checkpointing}: cosine {similarity}");
        assert!(similarity > 0.999 && adapter != plain.2, "{similarity}");
    }
}

#[test]
fn checkpoints_and_evaluations_come_when_they_are_due() {
    let mut case = Case::new("nf4_cayley");
    case.config.save_steps = Some(4.into());
    case.config.eval_steps = Some(3.into());
    let out = TempDir::new().unwrap();
    let mut recorder = Recorder::default();
    let dataset = Some(&case.dataset);
    let (_, summary) = case.run(&mut recorder, out.path(), None, dataset).unwrap();
    let steps: Vec<usize> = recorder.evaluations.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 3, 6, 8]);
    let last = out.path().join("checkpoint-8");
    assert_eq!(summary.checkpoint, Some(last.clone()));
    assert_eq!(
        recorder.saved,
        [
            out.path().join("checkpoint-4"),
            last,
            out.path().to_path_buf()
        ]
    );
    let svg = std::fs::read_to_string(out.path().join("loss.svg")).unwrap();
    assert!(svg.contains("evaluation"));
    let log = std::fs::read_to_string(out.path().join("log.jsonl")).unwrap();
    assert_eq!(log.matches("eval_loss").count(), 4);
}

#[test]
fn a_model_without_adapter_is_refused() {
    let case = Case::new("nf4_cayley");
    let out = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(&case.model_folder).unwrap();
    let folder = RunFolder::open(out.path()).unwrap();
    let base = Digest::of_checkpoint(&checkpoint).unwrap();
    let mut trainer = Trainer::new(&case.config, &case.oft_config, &case.dataset, &folder);
    trainer.base = Some(&base);
    assert_eq!(trainer.total_steps(), 8);
    let result = trainer.run(load(&case.model_folder), &mut (), &AtomicBool::new(false));
    assert!(matches!(result, Err(TrainError::NoAdapter(_))));
}

/// Noise follows from the place in the run, and is added in training alone.
#[test]
fn noise_is_the_same_in_runs_that_go_on_and_block_by_block() {
    let mut case = Case::new("nf4_accumulate");
    let plain = {
        let (out, mut recorder) = (TempDir::new().unwrap(), Recorder::default());
        case.run(&mut recorder, out.path(), None, None).unwrap();
        recorder.losses()
    };
    case.config.neftune_noise_alpha = Some(5.0);
    let run = |case: &Case, stop_at, from: Option<&std::path::Path>, out: &TempDir| {
        let mut recorder = Recorder {
            stop_at,
            ..Recorder::default()
        };
        let (model, summary) = case.run(&mut recorder, out.path(), from, None).unwrap();
        (recorder.losses(), tensors(&model), summary.checkpoint)
    };
    let (whole, parts) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let expected = run(&case, None, None, &whole);
    assert_ne!(expected.0, plain);
    let first = run(&case, Some(3), None, &parts);
    let rest = run(&case, None, first.2.as_deref(), &parts);
    assert_eq!([first.0, rest.0].concat(), expected.0);
    assert_eq!(rest.1, expected.1);
    case.config.gradient_checkpointing = true;
    let blocks = run(&case, None, None, &TempDir::new().unwrap());
    assert_eq!((blocks.0, blocks.1), (expected.0, expected.1));
}
