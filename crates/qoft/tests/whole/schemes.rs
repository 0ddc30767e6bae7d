//! Whole models of every scheme, written by its own library, and GPT-2: the loss of the base model, of an
//! adapted one, and a training run, against transformers and PEFT on the dequantized weights.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::{load, loss, open, rows};
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Schemes, default_device};
use qoft::models::CausalLm;
use qoft::oft::OftConfig;
use qoft::peft::{self, Families, ModelFacts};
use qoft::train::data::{Dataset, DatasetOptions};
use qoft::train::tokenizer::Tokenizer;
use qoft::train::train::{ADAPTER, Digest, Observer, RunFolder, StepReport, TrainConfig, Trainer};
use serde_json::Value;

/// Losses may differ by so much.
const TOLERANCE: f64 = 2e-4;
/// As [`TOLERANCE`], after a training whose layers round their inputs to FP8: an input next to a
/// tie goes to either side by the order of a sum, and takes the steps after it along.
const TOLERANCE_FP8_INPUTS: f64 = 1e-3;

struct Case {
    folder: PathBuf,
    reference: Value,
}

impl Case {
    /// All whole models in a folder of the fixtures.
    fn all(folder: &str) -> Vec<Self> {
        let mut cases = Vec::new();
        for folder in qoft_fixtures::folders(folder) {
            if let Ok(text) = std::fs::read_to_string(folder.join("reference.json")) {
                let reference = serde_json::from_str(&text).unwrap();
                cases.push(Self { folder, reference });
            }
        }
        assert!(!cases.is_empty(), "no whole model in {folder}");
        cases
    }

    fn number(&self, pointer: &str) -> f64 {
        let value = self.reference.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{}: {pointer}", self.folder.display()))
    }

    #[track_caller]
    fn close(&self, what: &str, found: f64, pointer: &str) {
        self.within(TOLERANCE, what, found, pointer);
    }

    /// What the losses of a training here may differ by.
    fn training_tolerance(&self) -> f64 {
        let scheme = self.folder.parent().and_then(Path::file_name);
        match scheme {
            Some(name) if name == "inc-fp8" => TOLERANCE_FP8_INPUTS,
            _ => TOLERANCE,
        }
    }

    #[track_caller]
    fn within(&self, tolerance: f64, what: &str, found: f64, pointer: &str) {
        let expected = self.number(pointer);
        let off = (found - expected).abs();
        println!("{} {what}: {found} {expected}", self.folder.display());
        let case = self.folder.display();
        assert!(
            off < tolerance,
            "{case}: {what} {found}, expected {expected}"
        );
    }

    fn adapted(&self, adapter: &str) -> CausalLm {
        let (mut model, device) = (load(&self.folder, &[]), default_device().unwrap());
        let folder = self.folder.join(adapter);
        peft::load(
            &mut model,
            &folder,
            &Families::linked().unwrap(),
            ModelFacts::of_type("llama").with_head("lm_head"),
            ADAPTER,
            &device,
        )
        .unwrap_or_else(|e| panic!("{e}"));
        model
    }

    fn check(&self) {
        let evaluation = rows(&self.reference["rows"]);
        let training = rows(&self.reference["train"]["rows"]);
        self.close("base", loss(&load(&self.folder, &[]), &evaluation), "/loss");
        let adapted = self.adapted("adapter");
        self.close("adapted", loss(&adapted, &evaluation), "/adapted_loss");
        let trained = self.adapted("trained");
        self.close("trained", loss(&trained, &training), "/train/final_loss");
        let own = self.train(&training);
        let (tolerance, found) = (self.training_tolerance(), loss(&own, &training));
        self.within(tolerance, "trained here", found, "/train/final_loss");
    }

    /// The reference's training run, repeated from the identity.
    fn train(&self, rows: &[Vec<i32>]) -> CausalLm {
        let work = tempfile::tempdir().unwrap();
        let data = work.path().join("rows.jsonl");
        let lines = rows
            .iter()
            .map(|row| format!("{{\"input_ids\": {row:?}}}\n"));
        std::fs::write(&data, lines.collect::<String>()).unwrap();

        let mut model = load(&self.folder, &[]);
        let options = DatasetOptions::new(model.config().vocab_size);
        let tokenizer = Tokenizer::from_dir(&self.folder).unwrap();
        let dataset = Dataset::load(&data, &tokenizer, &options, None).unwrap();
        let count = |key: &str| self.number(&format!("/train/{key}")) as usize;
        let mut config = TrainConfig::default();
        config.learning_rate = self.number("/train/lr");
        config.batch_size = count("batch_size");
        config.gradient_accumulation_steps = count("accumulation");
        config.max_steps = Some(count("steps"));
        config.max_grad_norm = self.number("/train/max_grad_norm");
        config.shuffle = false;
        let path = self.folder.join("trained/adapter_config.json");
        let oft_config = OftConfig::read(&path).unwrap();
        let device = default_device().unwrap().autodiff();
        peft::attach(
            &mut model,
            &oft_config,
            ModelFacts::of_type("llama").with_head("lm_head"),
            ADAPTER,
            1,
            &device,
        )
        .unwrap();
        let folder = RunFolder::open(&work.path().join("adapter")).unwrap();
        let base = Digest::of_checkpoint(&Checkpoint::open(&self.folder).unwrap()).unwrap();
        let mut trainer = Trainer::new(&config, &oft_config, &dataset, &folder);
        trainer.base = Some(&base);
        let mut losses = Losses(Vec::new());
        let stop = AtomicBool::new(false);
        let (model, _) = trainer.run(model, &mut losses, &stop).unwrap();
        for (step, found) in losses.0.iter().enumerate() {
            let pointer = format!("/train/losses/{step}");
            self.within(
                self.training_tolerance(),
                &format!("step {step}"),
                *found,
                &pointer,
            );
        }
        assert_eq!(losses.0.len(), count("steps"));
        model
    }
}

/// The loss of each step.
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) {
        self.0.push(report.loss);
    }

    fn eval(&mut self, _step: usize, _evaluation: &qoft::train::Evaluation) {}

    fn saved(&mut self, _folder: &Path) {}
}

macro_rules! cases {
    ($($test:ident: $folder:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            Case::all($folder).iter().for_each(Case::check);
        })+
    };
}

cases!(
    aqlm: "schemes/aqlm",
    awq: "schemes/awq",
    compressed_tensors: "schemes/compressed-tensors",
    eetq: "schemes/eetq",
    fp8: "schemes/fp8",
    gptq: "schemes/gptq",
    hqq: "schemes/hqq",
    inc_fp8: "schemes/inc-fp8",
    mlx: "schemes/mlx",
    modelopt: "schemes/modelopt",
    mxfp4: "schemes/mxfp4",
    torchao: "schemes/torchao",
    gpt2: "gpt2",
);

/// The scales of a cache, which one of the models has, are of no use there.
#[test]
fn a_dense_copy_has_nothing_of_the_scheme() {
    let work = tempfile::tempdir().unwrap();
    for case in Case::all("schemes/compressed-tensors") {
        let folder = open(&case.folder);
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        let output = work.path().join(case.folder.file_name().unwrap());
        qoft::dequantize(&folder, &schemes, &output, FloatFormat::F32, &|_, _| ()).unwrap();
        let dense = Checkpoint::open(&output).unwrap();
        for name in dense.names() {
            assert!(name.ends_with(".weight"), "{}: {name}", output.display());
        }
        assert!(dense.config().get("quantization_config").is_none());
    }
}
