//! Models that are none of ours: a language model of three layers, and one that reads no tokens.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::nn::{EmbeddingConfig, LinearConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use qoft_core::{Embedding, Linear, Walk, default_device};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig, ModelFacts};
use qoft_train::data::{Batch, Dataset, Example, Order};
use qoft_train::tokenizer::Tokenizer;
use qoft_train::train::{ADAPTER, Observer, RunFolder, Start, StepReport, TrainConfig, Trainer};
use qoft_train::{
    BatchLoss, GenerateModel, GenerateOptions, TokenModel, TrainBatch, TrainData, TrainError,
    TrainModel, evaluate, generate, input_ids, targets,
};

const VOCAB: usize = 320;

/// The generator of a device is that of all threads: who seeds it draws before another does.
static SEEDED: Mutex<()> = Mutex::new(());

/// Sees the last token only.
#[derive(Module, Debug, Walk)]
struct Bigrams {
    table: Embedding,
    inner: Linear,
    head: Linear,
}

impl Bigrams {
    fn new(device: &Device) -> Self {
        let _alone = SEEDED.lock().unwrap_or_else(PoisonError::into_inner);
        device.seed(3);
        let linear = |input, out| Linear::from(&LinearConfig::new(input, out).init(device));
        Self {
            table: Embedding::from(&EmbeddingConfig::new(VOCAB, 16).init(device)),
            inner: linear(16, 16),
            head: linear(16, VOCAB),
        }
    }

    /// `[rows, vocab]`
    fn logits(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        let [batch, time] = input_ids.dims();
        let x = self.table.forward(input_ids).reshape([batch * time, 16]);
        self.head.forward(self.inner.forward(x).tanh())
    }
}

/// The sum of the cross-entropies of the targets, divided by `denominator`.
fn cross_entropy(logits: Tensor<2>, targets: &[Option<u32>], denominator: f64) -> Tensor<1> {
    let rows: Vec<i32> = (0i32..)
        .zip(targets)
        .filter_map(|(row, t)| t.map(|_| row))
        .collect();
    let wanted: Vec<i32> = targets.iter().flatten().map(|&id| id as i32).collect();
    let device = logits.device();
    let indices = |values: &[i32]| Tensor::<1, Int>::from_data(values, &device);
    let rows = log_softmax(logits, 1).select(0, indices(&rows));
    rows.gather(1, indices(&wanted).unsqueeze_dim(1)).sum() / -denominator
}

impl TokenModel for Bigrams {
    fn vocab_size(&self) -> usize {
        VOCAB
    }
}

impl TrainModel for Bigrams {
    type Data = Dataset;

    fn loss(&self, batch: &Batch, denominator: f64, device: &Device) -> BatchLoss {
        let logits = self.logits(input_ids(batch, device));
        cross_entropy(logits, &targets(batch), denominator).into()
    }
}

impl GenerateModel for Bigrams {
    type Cache = ();

    fn new_cache(&self) {}

    fn context_length(&self) -> usize {
        64
    }

    fn next_logits(&self, input_ids: Tensor<2, Int>, _cache: Option<&mut ()>) -> Tensor<2> {
        let [batch, time] = input_ids.dims();
        self.logits(input_ids.narrow(1, time - 1, 1))
            .reshape([batch, VOCAB])
    }
}

/// Rows that count up.
fn counting() -> Dataset {
    let row = |start: u32| -> Vec<u32> { (0..12).map(|i| 20 + (start + i) % 30).collect() };
    let example = |start| {
        Example::new(
            row(start),
            row(start).into_iter().map(|id| id as i32).collect(),
        )
    };
    Dataset::new((0..16).map(|i| example(i * 7)))
}

fn oft_config(targets: &[&str]) -> OftConfig {
    let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
    let mut config = OftConfig::default();
    config.oft_block_size = 8;
    config.common = CommonConfig::targeting(targets);
    config
}

fn train_config(steps: usize) -> TrainConfig {
    let mut config = TrainConfig::default();
    config.learning_rate = 0.05;
    config.batch_size = 4;
    config.max_steps = Some(steps);
    config.save_steps = Some(10.into());
    config
}

fn adapted<M: Module + Walk>(mut model: M, config: &OftConfig) -> M {
    let device = default_device().unwrap().autodiff();
    let facts = ModelFacts::NONE.with_head("head");
    peft::attach(&mut model, config, facts, ADAPTER, 1, &device).unwrap();
    model
}

#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) {
        self.0.push(report.loss);
    }
}

#[test]
fn a_model_of_tokens_is_trained_resumed_evaluated_and_writes() {
    let device = default_device().unwrap();
    let (dataset, oft) = (counting(), oft_config(&["inner", "head"]));
    let work = tempfile::tempdir().unwrap();
    let run = |steps: usize, out: &str, resume: Option<&str>| {
        let (config, out) = (train_config(steps), work.path().join(out));
        let resume = resume.map(|folder| work.path().join(folder));
        let folder = RunFolder::open(&out).unwrap();
        let mut trainer = Trainer::new(&config, &oft, &dataset, &folder);
        trainer.eval_dataset = Some(&dataset);
        trainer.start = resume.as_deref().map_or(Start::New, Start::Checkpoint);
        let model = adapted(Bigrams::new(&device), &oft);
        let mut losses = Losses::default();
        let (model, _) = trainer
            .run(model, &mut losses, &AtomicBool::new(false))
            .unwrap();
        (model, losses.0)
    };
    let (model, losses) = run(20, "whole", None);
    assert_eq!(losses.len(), 20);
    let never = AtomicBool::new(false);
    let loss = |model: &Bigrams| {
        let evaluation = evaluate(model, &dataset, 4, &device, &never, &mut |_, _| ());
        evaluation.unwrap().loss
    };
    let (base, trained) = (loss(&Bigrams::new(&device)), loss(&model));
    assert!(trained < base - 0.3, "{base} {trained}");

    let (_, again) = run(20, "again", Some("whole/checkpoint-10"));
    assert_eq!(again, losses[10..]);

    let tokenizer = Tokenizer::from_dir(&qoft_fixtures::path("tokenizer")).unwrap();
    let mut options = GenerateOptions::default();
    options.max_new_tokens = 5;
    let written = generate(
        &model,
        &tokenizer,
        &[21, 22],
        &options,
        &device,
        &mut |_| (),
    )
    .unwrap();
    let mut ids = vec![22];
    for id in written.ids {
        let data = TensorData::new(vec![*ids.last().unwrap()], [1, 1]);
        let logits = model.valid().logits(Tensor::from_data(data, &device));
        assert_eq!(logits.argmax(1).into_scalar::<i32>(), id as i32);
        ids.push(id as i32);
    }
    assert_eq!(ids.len(), 6);
}

#[test]
fn what_a_model_cannot_do_is_refused_before_the_first_step() {
    let device = default_device().unwrap();
    let (dataset, oft) = (counting(), oft_config(&["inner"]));
    let work = tempfile::tempdir().unwrap();
    let mut config = train_config(3);
    config.gradient_checkpointing = true;
    let folder = RunFolder::open(work.path()).unwrap();
    let trainer = Trainer::new(&config, &oft, &dataset, &folder);
    let model = adapted(Bigrams::new(&device), &oft);
    let error = trainer
        .run(model, &mut (), &AtomicBool::new(false))
        .map(drop);
    match error.unwrap_err() {
        TrainError::Config { key, .. } => assert_eq!(key, "gradient_checkpointing"),
        other => panic!("{other}"),
    }
    drop(folder);
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
}

/// Points of the plane and what a model is to make of them.
struct Points(Vec<([f32; 2], f32)>);

struct PointBatch(Vec<([f32; 2], f32)>);

impl TrainBatch for PointBatch {
    fn predicted(&self) -> usize {
        self.0.len()
    }

    fn tokens(&self) -> usize {
        self.0.len()
    }
}

impl TrainData for Points {
    type Batch = PointBatch;

    fn rows(&self) -> usize {
        self.0.len()
    }

    fn content(&self, take: &mut dyn FnMut(&[u8])) {
        for ([x, y], wanted) in &self.0 {
            [x, y, wanted]
                .into_iter()
                .for_each(|number| take(&number.to_le_bytes()));
        }
    }

    fn predicted(&self) -> usize {
        self.0.len()
    }

    fn batches(
        &self,
        order: Order,
        batch_size: NonZeroUsize,
    ) -> Box<dyn ExactSizeIterator<Item = PointBatch> + '_> {
        let points = order.indices(self.0.len()).into_iter().map(|i| self.0[i]);
        let points: Vec<_> = points.collect();
        let batches = points
            .chunks(batch_size.get())
            .map(|chunk| PointBatch(chunk.to_vec()));
        Box::new(batches.collect::<Vec<_>>().into_iter())
    }
}

/// Turns points, and takes one coordinate.
#[derive(Module, Debug, Walk)]
struct Turn {
    layer: Linear,
}

impl TrainModel for Turn {
    type Data = Points;

    fn loss(&self, batch: &PointBatch, denominator: f64, device: &Device) -> BatchLoss {
        let count = batch.0.len();
        let points = batch.0.iter().flat_map(|(point, _)| *point).collect();
        let points: Vec<f32> = points;
        let wanted: Vec<f32> = batch.0.iter().map(|(_, wanted)| *wanted).collect();
        let points = Tensor::<2>::from_data(TensorData::new(points, [count, 2]), device);
        let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [count, 1]), device);
        let found = self.layer.forward(points);
        let squares = (found - wanted.autodiff()).powi_scalar(2);
        (squares.sum() / denominator).into()
    }
}

#[test]
fn a_model_without_tokens_learns_a_rotation() {
    let device = default_device().unwrap();
    let model = {
        let _alone = SEEDED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut layer = LinearConfig::new(2, 1).with_bias(false).init(&device);
        layer.weight = layer
            .weight
            .map(|_| Tensor::from_data([[1.0], [0.0]], &device));
        Turn {
            layer: Linear::from(&layer),
        }
    };
    // The coordinate after a turn by 0.6.
    let point = |i: usize| [(i as f32 * 0.7).sin(), (i as f32 * 1.3).cos()];
    let wanted = |[x, y]: [f32; 2]| 0.6f32.cos() * x + 0.6f32.sin() * y;
    let points = Points((0..32).map(|i| (point(i), wanted(point(i)))).collect());
    let mut oft = oft_config(&["layer"]);
    oft.oft_block_size = 2;
    oft.use_cayley_neumann = false;
    let mut config = train_config(60);
    config.batch_size = 8;
    let work = tempfile::tempdir().unwrap();
    let folder = RunFolder::open(work.path()).unwrap();
    let mut trainer = Trainer::new(&config, &oft, &points, &folder);
    trainer.eval_dataset = Some(&points);
    let (_, summary) = trainer
        .run(adapted(model, &oft), &mut (), &AtomicBool::new(false))
        .unwrap();
    let (first, last) = (summary.first_loss.unwrap(), summary.final_loss.unwrap());
    assert!(first > 0.05 && last < 1e-3, "{first} {last}");
    assert!(work.path().join("adapter_model.safetensors").is_file());
}
