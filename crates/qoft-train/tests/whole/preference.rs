//! Training on preferences against TRL's trainers with PEFT's OFT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use qoft_core::{Checkpoint, Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, Families, ModelFacts};
use qoft_train::data::{
    AnswerTokens, DataRow, DatasetOptions, IGNORED, Overlong, Preference, Rows,
};
use qoft_train::preference::{PreferenceConfig, PreferenceData, PreferenceModel, Stage};
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{
    ADAPTER, Digest, History, Observer, RunFolder, Start, StepReport, Summary, TrainConfig, Trainer,
};
use qoft_train::{Evaluation, TrainError, model_facts};
use serde_json::Value;
use tempfile::TempDir;

static NEVER: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Recorder {
    reports: Vec<StepReport>,
    evaluations: Vec<(usize, Evaluation)>,
    stop_at: Option<usize>,
}

struct Case {
    folder: PathBuf,
    expected: Value,
    rows: Rows<Preference>,
    adapter: OftConfig,
    config: TrainConfig,
}

fn path(name: &str) -> PathBuf {
    qoft_fixtures::path(&format!("preference/{name}"))
}

fn load() -> CausalLm {
    let folder = ModelFolder::open(path("model"), &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    CausalLm::load(
        &folder,
        &schemes,
        &default_device().unwrap(),
        &mut |_, _| {},
    )
    .unwrap()
}

fn rows(name: &str, stage: Stage, max_length: Option<usize>) -> Rows<Preference> {
    let tokenizer = Tokenizer::from_dir(&path("model")).unwrap();
    let mut options = DatasetOptions::new(320).with_max_length(max_length);
    options.answer_tokens = match stage.has_reference() {
        true => AnswerTokens::AsTexts,
        false => AnswerTokens::WithEnds,
    };
    options.overlong = Overlong::Truncate;
    Rows::load(&path(&format!("{name}.jsonl")), &tokenizer, &options, None).unwrap()
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = path(name);
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let count = |key: &str| expected[key].as_u64().unwrap() as usize;
        let preference: PreferenceConfig =
            serde_json::from_value(expected["preference"].clone()).unwrap();
        let mut config: TrainConfig =
            serde_json::from_str(r#"{"lr_scheduler": "constant", "shuffle": false}"#).unwrap();
        config.learning_rate = expected["lr"].as_f64().unwrap();
        config.batch_size = count("batch_size");
        config.gradient_accumulation_steps = count("accumulation");
        config.max_steps = Some(count("steps"));
        config.preference = Some(preference.clone());
        let name = expected["rows"].as_str().unwrap();
        Self {
            rows: rows(name, preference.stage, Some(count("max_length"))),
            adapter: OftConfig::read(&folder.join("adapter_config.json")).unwrap(),
            config,
            folder,
            expected,
        }
    }

    fn preference(&self) -> PreferenceConfig {
        self.config.preference.clone().unwrap()
    }

    fn model(&self) -> PreferenceModel {
        let mut model = load();
        let device = default_device().unwrap().autodiff();
        let facts = ModelFacts::of_type("llama").with_head("lm_head");
        let seed = self.config.seed;
        peft::attach(&mut model, &self.adapter, facts, ADAPTER, seed, &device).unwrap();
        PreferenceModel::new(model, ADAPTER, self.preference()).unwrap()
    }

    /// The rows as the stage learns them.
    fn data(&self) -> PreferenceData {
        let mut data = PreferenceData::new(self.rows.clone(), &self.preference()).unwrap();
        if self.preference().precompute_ref_log_probs {
            let (model, device) = (self.model(), default_device().unwrap());
            model
                .compute_reference(&mut data, 3, &device, &NEVER, &mut |_, _| {})
                .unwrap();
        }
        data
    }

    fn run(
        &self,
        recorder: &mut Recorder,
        out: &Path,
        start: Start,
    ) -> Result<(PreferenceModel, Summary), TrainError> {
        let base = Digest::of_checkpoint(&Checkpoint::open(path("model")).unwrap())?;
        let (data, folder) = (self.data(), RunFolder::open(out)?);
        let mut trainer = Trainer::new(&self.config, &self.adapter, &data, &folder);
        trainer.base = Some(&base);
        trainer.eval_dataset = Some(&data);
        trainer.start = start;
        let stop = AtomicBool::new(false);
        let mut events = Stopping {
            recorder,
            stop: &stop,
        };
        trainer.run(self.model(), &mut events, &stop)
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        let values = self.expected[key].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    }
}

/// Fills a recorder and raises the flag that stops the run.
struct Stopping<'a> {
    recorder: &'a mut Recorder,
    stop: &'a AtomicBool,
}

impl Observer for Stopping<'_> {
    fn step(&mut self, report: &StepReport) {
        self.recorder.reports.push(report.clone());
        if self.recorder.stop_at == Some(report.step) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn eval(&mut self, step: usize, evaluation: &Evaluation) {
        self.recorder.evaluations.push((step, evaluation.clone()));
    }
}

fn trained(model: &CausalLm) -> BTreeMap<String, Vec<f32>> {
    let tensors = peft::trained(model, ADAPTER).into_iter();
    tensors.map(|(name, _, values)| (name, values)).collect()
}

fn saved(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let plain = load();
    let (mut model, device) = (plain.clone(), default_device().unwrap().autodiff());
    let families = Families::linked().unwrap();
    let facts = model_facts(plain.spec());
    peft::load(&mut model, folder, &families, facts, ADAPTER, &device).unwrap();
    trained(&model)
}

/// Compares what was measured, by TRL's names.
fn check_metrics(case: &str, found: &BTreeMap<String, f64>, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        let value = value.as_f64().unwrap();
        // TRL writes it also where it does not count.
        if name == "loss" || (name == "nll_loss" && value == 0.0) {
            continue;
        }
        let found = found
            .get(name)
            .unwrap_or_else(|| panic!("{case}: no {name}"));
        let error = (found - value).abs();
        assert!(
            error < 2e-4 * (1.0 + value.abs()),
            "{case} {name}: {found} {value}"
        );
    }
}

fn check_case(name: &str) {
    let case = Case::new(name);
    // The tokens, and what is learned of them.
    let rows = case.data().rows;
    let examples = case.expected["examples"].as_array().unwrap();
    assert_eq!(rows.examples.len(), examples.len(), "{name}");
    for (row, expected) in rows.examples.iter().zip(examples) {
        for (part, expected) in row.parts().into_iter().zip(expected.as_array().unwrap()) {
            let ids: Vec<u32> = serde_json::from_value(expected["input_ids"].clone()).unwrap();
            let learned: Vec<u8> = serde_json::from_value(expected["learned"].clone()).unwrap();
            assert_eq!(part.input_ids[..], ids, "{name}");
            let found = part.labels.iter().map(|label| u8::from(*label != IGNORED));
            assert_eq!(found.collect::<Vec<_>>(), learned, "{name}");
        }
    }

    let out = TempDir::new().unwrap();
    let mut recorder = Recorder::default();
    let (model, summary) = case.run(&mut recorder, out.path(), Start::New).unwrap();
    let (losses, norms) = (case.numbers("losses"), case.numbers("grad_norms"));
    let metrics = case.expected["metrics"].as_array().unwrap();
    assert_eq!(recorder.reports.len(), losses.len());
    for (step, report) in recorder.reports.iter().enumerate() {
        let error = (report.loss - losses[step]).abs();
        println!(
            "{name} {step}: {} {} {error:.1e}",
            report.loss, losses[step]
        );
        assert!(
            error < 1e-5 * losses[step].abs().max(1.0),
            "{name} {report:?} {}",
            losses[step]
        );
        let error = (report.grad_norm / norms[step] - 1.0).abs();
        assert!(error < 1e-4, "{name} {report:?} {}", norms[step]);
        check_metrics(name, &report.metrics, &metrics[step]);
    }
    let (found, expected) = (trained(&model.clone().into_model()), saved(&case.folder));
    let pairs = found.values().flatten().zip(expected.values().flatten());
    let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{name}: weights {error:.1e}");
    assert!(error < 1e-5, "{name}: {error}");
    assert_eq!(saved(out.path()), found);

    let expected = &case.expected["eval"];
    let (step, evaluation) = recorder.evaluations.last().unwrap();
    assert_eq!(*step, losses.len());
    let error = (evaluation.loss - expected["loss"].as_f64().unwrap()).abs();
    assert!(
        error < 1e-5 * evaluation.loss.abs().max(1.0),
        "{name} {evaluation:?}"
    );
    check_metrics(name, &evaluation.metrics, expected);
    assert_eq!(summary.eval_metrics, evaluation.metrics);
    assert_eq!(
        summary.final_metrics,
        recorder.reports.last().unwrap().metrics
    );
    let history = History::read(out.path()).unwrap();
    // Read numbers may differ in their last digit.
    let is_like = |read: &BTreeMap<String, f64>, all: &BTreeMap<String, f64>| {
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs();
        read.keys().eq(all.keys()) && read.values().zip(all.values()).all(same)
    };
    assert!(is_like(
        &history.steps.last().unwrap().metrics,
        &summary.final_metrics
    ));
    assert!(is_like(
        &history.evaluations[0].metrics,
        &summary.eval_metrics
    ));
}

/// Stopped and resumed runs, also block by block, end where a whole one does.
#[test]
fn resumed_runs_are_the_same_bit_by_bit() {
    for name in ["dpo_chats", "orpo_chats", "kto_chats", "dpo_ahead"] {
        let mut case = Case::new(name);
        case.config.shuffle = true;
        let (whole, parts, blocks) = (
            TempDir::new().unwrap(),
            TempDir::new().unwrap(),
            TempDir::new().unwrap(),
        );
        let mut recorder = Recorder::default();
        case.run(&mut recorder, whole.path(), Start::New).unwrap();

        let mut first = Recorder {
            stop_at: Some(2),
            ..Recorder::default()
        };
        let (_, summary) = case.run(&mut first, parts.path(), Start::New).unwrap();
        assert!(summary.interrupted);
        let checkpoint = summary.checkpoint.unwrap();
        let mut rest = Recorder::default();
        let start = Start::Checkpoint(&checkpoint);
        case.run(&mut rest, parts.path(), start).unwrap();
        let metrics = |recorder: &Recorder| -> Vec<_> {
            let reports = recorder.reports.iter();
            reports
                .map(|r| (r.step, r.loss, r.metrics.clone()))
                .collect()
        };
        let expected = metrics(&recorder);
        assert_eq!(
            [metrics(&first), metrics(&rest)].concat(),
            expected,
            "{name}"
        );
        assert_eq!(saved(parts.path()), saved(whole.path()), "{name}");
        assert_eq!(recorder.evaluations, rest.evaluations, "{name}");

        case.config.gradient_checkpointing = true;
        let mut by_block = Recorder::default();
        case.run(&mut by_block, blocks.path(), Start::New).unwrap();
        assert_eq!(metrics(&by_block), expected, "{name}");
        assert_eq!(saved(blocks.path()), saved(whole.path()), "{name}");

        // Another loss is another run.
        case.config.gradient_checkpointing = false;
        let mut other = case.preference();
        other.beta *= 2.0;
        case.config.preference = Some(other);
        let error = case
            .run(&mut Recorder::default(), parts.path(), start)
            .err()
            .unwrap();
        assert!(error.to_string().contains("`preference` was"), "{error}");
    }
}

#[test]
fn stages_say_which_rows_they_need() {
    let judged = rows("judged", Stage::Kto, None);
    let error = PreferenceData::new(judged, &PreferenceConfig::default()).unwrap_err();
    assert!(error.to_string().contains("kto"), "{error}");
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check_case(stringify!($name));
        })*
    };
}

cases! {
    dpo dpo_chats dpo_implied dpo_ipo dpo_robust dpo_exo dpo_nca dpo_bco dpo_sppo dpo_aot dpo_aot_unpaired
    dpo_apo dpo_discopop dpo_sft dpo_cut dpo_ahead orpo orpo_chats simpo simpo_sft kto kto_chats kto_apo
    kto_pairs
}
