//! Whole models with adapters made by PEFT, and training.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::{Int, Tensor, TensorData};
// For a checkpoint in nf4.
use qoft_bnb as _;
use qoft_core::{BIAS, Schemes, Walk, adapters, default_device, read_json};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use qoft_peft::{self as peft, AdapterConfig, Families, ModelFacts, Modules, Selection};
use qoft_train::data::{Dataset, DatasetOptions};
use qoft_train::evaluate;
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{
    ADAPTER, Observer, RunFolder, SchedulerKind, Start, StepReport, TrainConfig, Trainer,
};
use serde_json::Value;

fn expected() -> Value {
    let path = qoft_fixtures::path("boft/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model(name: &str) -> CausalLm {
    let folder = qoft_fixtures::path(&format!("models/{name}"));
    let folder = ModelFolder::open(folder, &Architectures::linked().unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let device = default_device().unwrap();
    CausalLm::load(&folder, &schemes, &device, &mut |_, _| ()).unwrap()
}

fn folder(case: &str) -> PathBuf {
    qoft_fixtures::path("boft").join(case)
}

fn load(
    model: &mut CausalLm,
    folder: &Path,
    name: &str,
) -> qoft_core::Result<Arc<dyn AdapterConfig>> {
    let (families, device) = (Families::linked().unwrap(), default_device().unwrap());
    let facts = ModelFacts::of_type("llama").with_head("lm_head");
    peft::load(model, folder, &families, facts, name, &device)
}

/// Mean loss over all predicted tokens of the rows, each alone.
fn loss(model: &CausalLm, expected: &Value) -> f64 {
    let rows: Vec<Vec<i32>> = serde_json::from_value(expected["rows"].clone()).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for row in rows {
        let mut targets: Vec<_> = row[1..].iter().map(|&id| Some(id as u32)).collect();
        targets.push(None);
        count += row.len() - 1;
        let data = TensorData::new(row.clone(), [1, row.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &default_device().unwrap());
        sum += f64::from(model.loss(ids, targets, 1.0).into_scalar::<f32>());
    }
    sum / count as f64
}

fn close(found: f64, reference: &Value, what: &str) {
    let reference = reference.as_f64().unwrap();
    assert!(
        (found - reference).abs() < 1e-5,
        "{what}: {found} {reference}"
    );
}

#[test]
fn adapted_and_merged_models_have_the_reference_loss() {
    let expected = expected();
    let cases = expected["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 7);
    for (case, reference) in cases {
        let mut model = model(reference["model"].as_str().unwrap());
        close(loss(&model, &expected), &reference["base"], case);
        load(&mut model, &folder(case), "default").unwrap();
        close(loss(&model, &expected), &reference["loss"], case);
        adapters::merge(&mut model).unwrap();
        close(loss(&model, &expected), &reference["loss"], case);
        adapters::unmerge(&mut model).unwrap();
        adapters::disable_all(&mut model);
        close(loss(&model, &expected), &reference["base"], case);
    }
}

#[test]
fn of_two_adapters_the_input_meets_the_last_one_first() {
    let expected = expected();
    for pair in expected["pairs"].as_array().unwrap() {
        let mut model = model("llama");
        for name in ["first", "second"] {
            load(&mut model, &folder(pair[name].as_str().unwrap()), name).unwrap();
        }
        close(loss(&model, &expected), &pair["loss"], "adapted");
        adapters::merge(&mut model).unwrap();
        close(loss(&model, &expected), &pair["loss"], "merged");
    }
}

#[test]
fn a_saved_adapter_equals_the_one_that_was_loaded() {
    for (case, values) in expected()["cases"].as_object().unwrap() {
        let name = values["model"].as_str().unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut first = model(name);
        let config = load(&mut first, &folder(case), "default").unwrap();
        peft::save(&first, &*config, "default", out.path()).unwrap();
        let mut second = model(name);
        let again = load(&mut second, out.path(), "default").unwrap();
        assert_eq!(again.to_json(), config.to_json());
        let trained = |model: &CausalLm| peft::trained(model, "default");
        assert_eq!(trained(&first), trained(&second));
        let read = |folder: &Path| read_json(&folder.join("adapter_config.json")).unwrap();
        assert_eq!(read(out.path()), read(&folder(case)));
    }
}

#[test]
fn configurations_mean_what_they_mean_to_peft() {
    let (expected, family) = (expected(), qoft_boft::REGISTRATION.item());
    let rows = expected["selections"].as_array().unwrap();
    assert_eq!(rows.len(), 23);
    for row in rows {
        let mut model = model(row["model"].as_str().unwrap());
        let mut json = family.defaults();
        for (key, value) in row["config"].as_object().unwrap() {
            json[key] = value.clone();
        }
        let facts = ModelFacts::of_type("llama").with_head("lm_head");
        let attached = family.read(json, "x").and_then(|config| {
            let modules = Modules::of(&model, "lm_head");
            let selection = Selection::new(&*config, facts, &modules)?;
            let layers = model.layers();
            let biases = layers.iter().filter(|(path, layer)| {
                let has = layer.tensors().iter().any(|tensor| tensor.name == BIAS);
                has && selection.trains_bias(path)
            });
            let biases: BTreeSet<String> = biases.map(|(path, _)| format!("{path}.bias")).collect();
            let rotated: BTreeSet<String> = selection.rotated().keys().cloned().collect();
            peft::attach(&mut model, &*config, facts, "a", 1, &default_device()?)?;
            Ok((rotated, biases))
        });
        let names =
            |key: &str| -> BTreeSet<String> { serde_json::from_value(row[key].clone()).unwrap() };
        match attached {
            Ok((rotated, biases)) => {
                assert_eq!(row["refused"], Value::Null, "{row}");
                assert_eq!(rotated, names("adapted"), "{row}");
                assert_eq!(biases, names("biases"), "{row}");
            }
            Err(error) => assert_eq!(row["refused"], true, "{row}: {error}"),
        }
    }
}

/// What PEFT has loaded of what `qoft train` saved.
#[test]
fn adapters_that_we_saved_have_the_loss_that_they_have_in_peft() {
    let expected = expected();
    let cases = expected["saved"].as_object().unwrap();
    assert_eq!(cases.len(), 3);
    for (case, values) in cases {
        let mut model = model(values["model"].as_str().unwrap());
        let base = loss(&model, &expected);
        let folder = folder("saved").join(case);
        let config = load(&mut model, &folder, "default").unwrap();
        assert_eq!(config.peft_type(), "BOFT");
        let found = loss(&model, &expected);
        close(found, &values["loss"], case);
        assert!((found - base).abs() > 1e-3, "{case}");
    }
}

#[derive(Default)]
struct Steps(Vec<StepReport>);

impl Observer for Steps {
    fn step(&mut self, report: &StepReport) {
        self.0.push(report.clone());
    }
}

/// The run of the fixtures.
struct Run {
    config: TrainConfig,
    adapter: Arc<dyn AdapterConfig>,
    dataset: Dataset,
}

impl Run {
    fn new(expected: &Value) -> Self {
        let folder = folder("train");
        let path = folder.join("adapter_config.json");
        let json = read_json(&path).unwrap();
        let family = Families::linked().unwrap();
        let family = family.find("BOFT", "x").unwrap();
        let tokenizer = Tokenizer::from_dir(&qoft_fixtures::path("models/llama")).unwrap();
        let options = DatasetOptions::new(64);
        let count = |key: &str| expected["train"][key].as_u64().unwrap() as usize;
        let mut config = TrainConfig::default();
        config.learning_rate = expected["train"]["lr"].as_f64().unwrap();
        config.batch_size = count("batch_size");
        config.max_steps = Some(6);
        config.lr_scheduler = SchedulerKind::Constant;
        config.shuffle = false;
        config.save_steps = Some(3.into());
        Self {
            config,
            adapter: family.read(json, "x").unwrap(),
            dataset: Dataset::load(&folder.join("rows.jsonl"), &tokenizer, &options, None).unwrap(),
        }
    }

    fn with_adapter(mut self, key: &str, value: Value) -> Self {
        let mut json = self.adapter.to_json();
        json[key] = value;
        self.adapter = self.adapter.family().read(json, "x").unwrap();
        self
    }

    fn model(&self) -> CausalLm {
        let mut model = model("llama");
        let device = default_device().unwrap().autodiff();
        let facts = ModelFacts::of_type("llama").with_head("lm_head");
        let seed = self.config.seed;
        peft::attach(&mut model, &*self.adapter, facts, ADAPTER, seed, &device).unwrap();
        model
    }

    fn train(&self, out: &Path, start: Start) -> (CausalLm, Vec<StepReport>) {
        let folder = RunFolder::open(out).unwrap();
        let mut trainer = Trainer::new(&self.config, &*self.adapter, &self.dataset, &folder);
        trainer.start = start;
        let (stop, mut steps) = (AtomicBool::new(false), Steps::default());
        let (model, _) = trainer.run(self.model(), &mut steps, &stop).unwrap();
        (model, steps.0)
    }
}

fn values(model: &CausalLm) -> Vec<f32> {
    let trained = peft::trained(model, ADAPTER).into_iter();
    trained.flat_map(|(.., values)| values).collect()
}

#[test]
fn six_steps_are_those_of_pefts() {
    let expected = expected();
    let (run, out) = (Run::new(&expected), tempfile::tempdir().unwrap());
    let (trained, steps) = run.train(out.path(), Start::New);
    let reference = |key: &str| expected["train"][key].as_array().unwrap().clone();
    let (losses, norms) = (reference("losses"), reference("grad_norms"));
    assert_eq!((steps.len(), losses.len()), (6, 6));
    for (step, (loss, norm)) in steps.iter().zip(losses.iter().zip(&norms)) {
        let (loss, norm) = (loss.as_f64().unwrap(), norm.as_f64().unwrap());
        assert!((step.loss - loss).abs() < 2e-4, "{step:?} {loss}");
        assert!(
            (step.grad_norm / norm - 1.0).abs() < 1e-3,
            "{step:?} {norm}"
        );
    }
    let start = values(&run.model());
    let mut theirs = model("llama");
    load(&mut theirs, &folder("train"), ADAPTER).unwrap();
    let change = |model: &CausalLm| -> Vec<f64> {
        let pairs = values(model).into_iter().zip(&start);
        pairs.map(|(end, start)| f64::from(end - start)).collect()
    };
    let (ours, theirs) = (change(&trained), change(&theirs));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
    assert!(cosine > 0.9999, "{cosine}");
    let (never, device) = (AtomicBool::new(false), default_device().unwrap());
    let evaluation = evaluate(&trained, &run.dataset, 3, &device, &never, &mut |_, _| {});
    let reference = expected["train"]["final_loss"].as_f64().unwrap();
    assert!((evaluation.unwrap().loss - reference).abs() < 5e-4);
}

#[test]
fn a_run_with_dropout_goes_on_as_if_it_had_never_stopped() {
    let run = || Run::new(&expected()).with_adapter("boft_dropout", 0.5.into());
    let work = tempfile::tempdir().unwrap();
    let (whole, steps) = run().train(&work.path().join("whole"), Start::New);
    let checkpoint = work.path().join("whole/checkpoint-3");
    let start = Start::Checkpoint(&checkpoint);
    let (again, later) = run().train(&work.path().join("again"), start);
    let losses = |steps: &[StepReport]| steps.iter().map(|s| s.loss).collect::<Vec<_>>();
    assert_eq!(losses(&later), losses(&steps[3..]));
    assert_eq!(values(&again), values(&whole));
    let plain = Run::new(&expected()).train(&work.path().join("plain"), Start::New);
    assert_ne!(losses(&plain.1), losses(&steps), "dropout changes the run");
    // Gradient checkpointing draws the same in its second pass, and another seed draws otherwise.
    let mut checkpointing = run();
    checkpointing.config.gradient_checkpointing = true;
    let (same, _) = checkpointing.train(&work.path().join("by block"), Start::New);
    assert_eq!(values(&same), values(&whole));
    let mut other = run();
    other.config.seed += 1;
    let (other, _) = other.train(&work.path().join("seed"), Start::New);
    assert_ne!(values(&other), values(&whole));
}

#[test]
fn initial_values_follow_from_the_seed() {
    let start = |seed| {
        let mut run = Run::new(&expected()).with_adapter("init_weights", false.into());
        run.config.seed = seed;
        values(&run.model())
    };
    assert_eq!(start(1), start(1));
    assert_ne!(start(1), start(2));
}
