//! Supervised training against TRL's SFTTrainer with PEFT's OFT.

use std::sync::atomic::AtomicBool;

use qoft_core::{Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, ModelFacts};
use qoft_train::data::{Dataset, DatasetOptions};
use qoft_train::evaluate;
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{ADAPTER, Observer, RunFolder, StepReport, TrainConfig, Trainer};
use serde_json::Value;
use tempfile::TempDir;

/// The name of the share of tokens that are predicted.
const ACCURACY: &str = "mean_token_accuracy";

static NEVER: AtomicBool = AtomicBool::new(false);

struct Reports(Vec<StepReport>);

impl Observer for Reports {
    fn step(&mut self, report: &StepReport) {
        self.0.push(report.clone());
    }
}

fn model(adapter: &OftConfig, config: &TrainConfig) -> CausalLm {
    let folder = qoft_fixtures::path("preference/model");
    let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    let mut model = CausalLm::load(&folder, &schemes, &device, &mut |_, _| {}).unwrap();
    let facts = ModelFacts::of_type("llama").with_head("lm_head");
    let device = device.autodiff();
    peft::attach(&mut model, adapter, facts, ADAPTER, config.seed, &device).unwrap();
    model
}

/// Trains, and compares losses, accuracies and gradients.
fn check(name: &str) {
    let folder = qoft_fixtures::path("sft").join(name);
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let count = |key: &str| expected[key].as_u64().unwrap() as usize;
    let numbers = |key: &str| -> Vec<f64> {
        let values = expected[key].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let mut config: TrainConfig =
        serde_json::from_str(r#"{"lr_scheduler": "constant", "shuffle": false}"#).unwrap();
    config.learning_rate = expected["lr"].as_f64().unwrap();
    config.batch_size = count("batch_size");
    config.gradient_accumulation_steps = count("accumulation");
    config.max_steps = Some(count("steps"));
    let mut tokenizer = Tokenizer::from_dir(&qoft_fixtures::path("preference/model")).unwrap();
    if let Ok(template) = std::fs::read_to_string(folder.join("chat_template.jinja")) {
        tokenizer = tokenizer.with_chat_template(template);
    }
    let rows = folder.join("rows.jsonl");
    let dataset = Dataset::load(&rows, &tokenizer, &DatasetOptions::new(320), None).unwrap();
    let adapter = OftConfig::read(&folder.join("adapter_config.json")).unwrap();
    let out = TempDir::new().unwrap();
    let run_folder = RunFolder::open(out.path()).unwrap();
    let trainer = Trainer::new(&config, &adapter, &dataset, &run_folder);
    let mut reports = Reports(Vec::new());
    let model = model(&adapter, &config);
    let (model, _) = trainer.run(model, &mut reports, &NEVER).unwrap();

    let (losses, norms) = (numbers("losses"), numbers("grad_norms"));
    let accuracies = numbers("accuracies");
    assert_eq!(reports.0.len(), losses.len());
    for (step, report) in reports.0.iter().enumerate() {
        let place = format!("{name}, step {step}: {report:?}");
        assert!((report.loss - losses[step]).abs() < 2e-4, "{place}");
        assert!(
            (report.grad_norm / norms[step] - 1.0).abs() < 1e-3,
            "{place}"
        );
        let accuracy = report.metrics[ACCURACY];
        assert!((accuracy - accuracies[step]).abs() < 1e-6, "{place}");
    }
    let device = default_device().unwrap();
    let evaluation = evaluate(&model, &dataset, 8, &device, &NEVER, &mut |_, _| {}).unwrap();
    let eval = &expected["eval"];
    let loss = eval["loss"].as_f64().unwrap();
    assert!((evaluation.loss - loss).abs() < 5e-4, "{evaluation:?}");
    let accuracy = eval["accuracy"].as_f64().unwrap();
    assert!(
        (evaluation.metrics[ACCURACY] - accuracy).abs() < 1e-6,
        "{evaluation:?}"
    );
}

/// A prompt and its completion, of which the completion is learned.
#[test]
fn completions_are_learned_as_trl_does() {
    check("completions");
}

/// The assistant's messages are learned.
#[test]
fn messages_are_learned_as_trl_does() {
    check("chats");
}

/// Most tokens are predicted, so that the accuracy says something.
#[test]
fn tokens_are_learned_as_trl_does() {
    check("tokens");
}
