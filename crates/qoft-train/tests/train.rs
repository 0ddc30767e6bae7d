//! Training against transformers' `Trainer` with PEFT, and what a run leaves behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use qoft_bnb as _;
use qoft_core::{Checkpoint, LoadOptions, OftConfig, Registry, oft};
use qoft_models::CausalLm;
use qoft_train::data::{Dataset, DatasetOptions};
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{
    ADAPTER, ActivationDtype, Observer, StepReport, Summary, TrainConfig, Trainer,
};
use qoft_train::{Evaluation, TrainError, evaluate};
use serde_json::Value;
use tempfile::TempDir;

/// Tensors of an adapter by name.
type Tensors = BTreeMap<String, Vec<f32>>;

/// Collects the reports of a run and stops it after `stop_at` steps.
#[derive(Default)]
struct Recorder {
    reports: Vec<StepReport>,
    evaluations: Vec<(usize, Evaluation)>,
    saved: Vec<PathBuf>,
    stop_at: Option<usize>,
}

impl Recorder {
    fn losses(&self) -> Vec<f64> {
        self.reports.iter().map(|report| report.loss).collect()
    }
}

/// Fills a recorder and raises the flag that stops the run.
struct Listener<'a>(&'a mut Recorder, &'a AtomicBool);

impl Observer for Listener<'_> {
    fn step(&mut self, report: &StepReport) {
        self.0.reports.push(*report);
        if self.0.stop_at == Some(report.step) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        self.0.evaluations.push((step, *evaluation));
    }

    fn saved(&mut self, folder: &Path) {
        self.0.saved.push(folder.to_owned());
    }
}

/// A reference run.
struct Case {
    folder: PathBuf,
    expected: Value,
    oft_config: OftConfig,
    model_folder: PathBuf,
    dataset: Dataset,
    config: TrainConfig,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = qoft_fixtures::path(&format!("train/{name}"));
        let text = std::fs::read_to_string(folder.join("losses.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let count = |key: &str| expected[key].as_u64().unwrap() as usize;
        let model = expected["model"].as_str().unwrap();
        let model_folder = qoft_fixtures::path(&format!("models/{model}"));
        let tokenizer = Tokenizer::from_dir(&model_folder).unwrap();
        let options = DatasetOptions {
            vocab_size: load(&model_folder).config().vocab_size,
            max_length: None,
        };
        let rows = folder.join("rows.jsonl");
        Self {
            oft_config: OftConfig::read(&folder.join("adapter_config.json")).unwrap(),
            dataset: Dataset::load(&rows, &tokenizer, &options, None).unwrap(),
            config: TrainConfig {
                learning_rate: expected["lr"].as_f64().unwrap(),
                batch_size: count("batch_size"),
                gradient_accumulation_steps: count("accumulation"),
                max_steps: Some(count("steps")),
                max_grad_norm: expected["max_grad_norm"].as_f64().unwrap(),
                shuffle: false,
                ..TrainConfig::default()
            },
            folder,
            expected,
            model_folder,
        }
    }

    /// The model with a new adapter.
    fn model(&self) -> CausalLm {
        let mut model = load(&self.model_folder);
        let model_type = model.config().model_type.clone();
        let device = Device::flex().autodiff();
        oft::attach(
            &mut model,
            &self.oft_config,
            &model_type,
            CausalLm::HEAD,
            ADAPTER,
            &device,
        )
        .unwrap();
        model
    }

    fn run(
        &self,
        recorder: &mut Recorder,
        out_dir: &Path,
        resume_from: Option<&Path>,
        eval_dataset: Option<&Dataset>,
    ) -> Result<(CausalLm, Summary), TrainError> {
        let trainer = Trainer {
            config: &self.config,
            oft_config: &self.oft_config,
            dataset: &self.dataset,
            eval_dataset,
            out_dir,
            resume_from,
        };
        let stop = AtomicBool::new(false);
        trainer.run(self.model(), &mut Listener(recorder, &stop), &stop)
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        let values = self.expected[key].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    }
}

fn load(folder: &Path) -> CausalLm {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let registry = Registry::linked().unwrap();
    let options = LoadOptions::default();
    let device = Device::flex();
    CausalLm::load(&checkpoint, &registry, &options, &device, &mut |_, _| {}).unwrap()
}

/// The adapter in `folder` by name, read as the program reads adapters.
fn adapter(case: &Case, folder: &Path) -> Tensors {
    let mut model = load(&case.model_folder);
    let model_type = model.config().model_type.clone();
    let device = Device::flex().autodiff();
    oft::load(
        &mut model,
        folder,
        &model_type,
        CausalLm::HEAD,
        ADAPTER,
        &device,
    )
    .unwrap();
    tensors(&model)
}

fn tensors(model: &CausalLm) -> Tensors {
    oft::trained(model, ADAPTER)
        .into_iter()
        .map(|(name, _, values)| (name, values))
        .collect()
}

fn cosine(a: &Tensors, b: &Tensors) -> f64 {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.values().flatten().zip(b.values().flatten()) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    dot / (aa * bb).sqrt()
}

fn check_case(name: &str) {
    let case = Case::new(name);
    let out = TempDir::new().unwrap();
    let mut recorder = Recorder::default();
    let (model, summary) = case.run(&mut recorder, out.path(), None, None).unwrap();
    let rates = case.numbers("learning_rates");
    let norms = case.numbers("grad_norms");
    let losses = case.numbers("losses");
    assert_eq!(recorder.reports.len(), losses.len());
    for (i, report) in recorder.reports.iter().enumerate() {
        assert!((report.lr - rates[i]).abs() < 1e-12, "{report:?}");
        let difference = (report.loss - losses[i]).abs();
        assert!(difference < 2e-4, "{name} {report:?} {}", losses[i]);
        let difference = (report.grad_norm / norms[i] - 1.0).abs();
        assert!(difference < 1e-3, "{name} {report:?} {}", norms[i]);
    }
    let trained = adapter(&case, out.path());
    assert_eq!(trained, tensors(&model));
    let similarity = cosine(&trained, &adapter(&case, &case.folder));
    println!("{name}: cosine {similarity}");
    assert!(similarity >= 0.9999, "{name}: cosine {similarity}");

    let device = Device::flex();
    let evaluation = evaluate(&model, &case.dataset, 3, &device, &mut |_, _| {}).unwrap();
    let expected = case.expected["final_loss"].as_f64().unwrap();
    assert!((evaluation.loss - expected).abs() < 5e-4, "{evaluation:?}");
    assert_eq!(evaluation.tokens, case.dataset.report.predicted);
    assert_eq!(evaluation.perplexity, evaluation.loss.exp());

    assert_eq!(summary.steps, losses.len());
    assert_eq!(summary.first_loss, Some(recorder.losses()[0]));
    assert_eq!(summary.final_loss, recorder.losses().last().copied());
    assert!(!summary.interrupted && summary.checkpoint.is_none());
    assert_eq!(recorder.saved, [out.path()]);
}

#[test]
fn nf4_all_linear() {
    check_case("nf4_all_linear");
}

#[test]
fn nf4_cayley() {
    check_case("nf4_cayley");
}

#[test]
fn nf4_coft_share() {
    check_case("nf4_coft_share");
}

#[test]
fn int8_all_linear() {
    check_case("int8_all_linear");
}

#[test]
fn nf4_accumulate() {
    check_case("nf4_accumulate");
}

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
    assert_eq!(losses, straight.losses());
    let trained = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(trained(whole.path()), trained(parts.path()));

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
    case.config.save_steps = Some(4);
    case.config.eval_steps = Some(3);
    let out = TempDir::new().unwrap();
    let mut recorder = Recorder::default();
    let dataset = Some(&case.dataset);
    let (_, summary) = case.run(&mut recorder, out.path(), None, dataset).unwrap();
    let steps: Vec<usize> = recorder.evaluations.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [3, 6, 8]);
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
    assert_eq!(log.matches("eval_loss").count(), 3);
}

#[test]
fn a_diverging_run_stops_and_leaves_the_good_adapter_alone() {
    let mut case = Case::new("nf4_all_linear");
    case.config.learning_rate = 1e30;
    let out = TempDir::new().unwrap();
    let good = out.path().join("adapter_model.safetensors");
    std::fs::write(&good, "good").unwrap();
    let error = case.run(&mut Recorder::default(), out.path(), None, None);
    let error = error.expect_err("a run with values that overflow");
    assert!(
        matches!(error, TrainError::NotFinite { step: 2, .. }),
        "{error}"
    );
    assert_eq!(std::fs::read(&good).unwrap(), b"good");
}

#[test]
fn a_model_without_adapter_is_refused() {
    let case = Case::new("nf4_cayley");
    let out = TempDir::new().unwrap();
    let trainer = Trainer {
        config: &case.config,
        oft_config: &case.oft_config,
        dataset: &case.dataset,
        eval_dataset: None,
        out_dir: out.path(),
        resume_from: None,
    };
    assert_eq!(trainer.total_steps(), 8);
    let result = trainer.run(load(&case.model_folder), &mut (), &AtomicBool::new(false));
    assert!(matches!(result, Err(TrainError::NoAdapter(_))));
}
