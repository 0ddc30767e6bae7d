//! Reference runs, and the same runs here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use qoft_bnb as _;
use qoft_core::{Checkpoint, Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, Families, ModelFacts};
use qoft_train::data::{Dataset, DatasetOptions};
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{
    ADAPTER, Digest, Observer, RunFolder, Start, StepReport, Summary, TrainConfig, Trainer,
};
use qoft_train::{Evaluation, TrainError, model_facts};
use serde_json::Value;

/// What nobody asks to stop.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// Tensors of an adapter by name.
pub type Tensors = BTreeMap<String, Vec<f32>>;

/// Collects the reports of a run and stops it after `stop_at` steps.
#[derive(Default)]
pub struct Recorder {
    pub reports: Vec<StepReport>,
    pub evaluations: Vec<(usize, Evaluation)>,
    pub saved: Vec<PathBuf>,
    pub warnings: Vec<String>,
    pub stop_at: Option<usize>,
    /// Batches of evaluations after which the run is stopped.
    pub stop_in_evaluation: Option<usize>,
}

impl Recorder {
    pub fn losses(&self) -> Vec<f64> {
        self.reports.iter().map(|report| report.loss).collect()
    }
}

/// Fills a recorder and raises the flag that stops the run.
struct Listener<'a>(&'a mut Recorder, &'a AtomicBool);

impl Observer for Listener<'_> {
    fn step(&mut self, report: &StepReport) {
        self.0.reports.push(report.clone());
        if self.0.stop_at == Some(report.step) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        self.0.evaluations.push((step, evaluation.clone()));
    }

    fn evaluating(&mut self, done: usize, _: usize) {
        if self.0.stop_in_evaluation == Some(done) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn saved(&mut self, folder: &Path) {
        self.0.saved.push(folder.to_owned());
    }

    fn warning(&mut self, text: &str) {
        self.0.warnings.push(text.to_owned());
    }
}

/// A reference run.
pub struct Case {
    pub folder: PathBuf,
    pub expected: Value,
    pub oft_config: OftConfig,
    pub model_folder: PathBuf,
    pub dataset: Dataset,
    pub config: TrainConfig,
}

impl Case {
    pub fn new(name: &str) -> Self {
        let folder = qoft_fixtures::path(&format!("train/{name}"));
        let text = std::fs::read_to_string(folder.join("losses.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let count = |key: &str| expected[key].as_u64().unwrap() as usize;
        let model = expected["model"].as_str().unwrap();
        let model_folder = qoft_fixtures::path(&format!("models/{model}"));
        let tokenizer = Tokenizer::from_dir(&model_folder).unwrap();
        let options = DatasetOptions::new(load(&model_folder).config().vocab_size);
        let rows = folder.join("rows.jsonl");
        let mut config = TrainConfig::default();
        config.learning_rate = expected["lr"].as_f64().unwrap();
        config.batch_size = count("batch_size");
        config.gradient_accumulation_steps = count("accumulation");
        config.max_steps = Some(count("steps"));
        config.max_grad_norm = expected["max_grad_norm"].as_f64().unwrap();
        config.weight_decay = expected["weight_decay"].as_f64().unwrap_or(0.0);
        config.label_smoothing_factor = expected["label_smoothing"].as_f64().unwrap_or(0.0);
        config.shuffle = false;
        Self {
            oft_config: OftConfig::read(&folder.join("adapter_config.json")).unwrap(),
            dataset: Dataset::load(&rows, &tokenizer, &options, None).unwrap(),
            config,
            folder,
            expected,
            model_folder,
        }
    }

    /// The model with a new adapter.
    pub fn model(&self) -> CausalLm {
        let mut model = load(&self.model_folder);
        let coef = self.expected["router_aux_loss_coef"].as_f64();
        model.set_router_aux_loss_coef(coef.unwrap_or(0.0)).unwrap();
        let model_type = model.config().model_type.clone();
        let device = default_device().unwrap().autodiff();
        peft::attach(
            &mut model,
            &self.oft_config,
            ModelFacts::of_type(&model_type).with_head("lm_head"),
            ADAPTER,
            self.config.seed,
            &device,
        )
        .unwrap();
        model
    }

    /// A run from the first step, or on from a checkpoint.
    pub fn run(
        &self,
        recorder: &mut Recorder,
        out_dir: &Path,
        resume_from: Option<&Path>,
        eval_dataset: Option<&Dataset>,
    ) -> Result<(CausalLm, Summary), TrainError> {
        let start = resume_from.map_or(Start::New, Start::Checkpoint);
        self.run_from(recorder, out_dir, start, eval_dataset)
    }

    pub fn run_from(
        &self,
        recorder: &mut Recorder,
        out_dir: &Path,
        start: Start,
        eval_dataset: Option<&Dataset>,
    ) -> Result<(CausalLm, Summary), TrainError> {
        let checkpoint = Checkpoint::open(&self.model_folder).unwrap();
        let folder = RunFolder::open(out_dir)?;
        let base = Digest::of_checkpoint(&checkpoint)?;
        let mut trainer = Trainer::new(&self.config, &self.oft_config, &self.dataset, &folder);
        trainer.base = Some(&base);
        trainer.eval_dataset = eval_dataset;
        trainer.start = start;
        let stop = AtomicBool::new(false);
        trainer.run(self.model(), &mut Listener(recorder, &stop), &stop)
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let values = self.expected[key].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    }
}

pub fn load(folder: &Path) -> CausalLm {
    let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    CausalLm::load(&folder, &schemes, &device, &mut |_, _| {}).unwrap()
}

/// The adapter in `folder` by name, read as the program reads adapters.
pub fn adapter(case: &Case, folder: &Path) -> Tensors {
    let plain = load(&case.model_folder);
    let mut model = plain.clone();
    let device = default_device().unwrap().autodiff();
    peft::load(
        &mut model,
        folder,
        &Families::linked().unwrap(),
        model_facts(plain.spec()),
        ADAPTER,
        &device,
    )
    .unwrap();
    tensors(&model)
}

pub fn tensors(model: &CausalLm) -> Tensors {
    peft::trained(model, ADAPTER)
        .into_iter()
        .map(|(name, _, values)| (name, values))
        .collect()
}

/// How far each value is from `start`.
pub fn changes(mut tensors: Tensors, start: &Tensors) -> Tensors {
    for (name, values) in &mut tensors {
        let start = start[name].iter();
        values
            .iter_mut()
            .zip(start)
            .for_each(|(v, start)| *v -= start);
    }
    tensors
}

pub fn cosine(a: &Tensors, b: &Tensors) -> f64 {
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
