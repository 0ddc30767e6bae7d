//! What a training step takes, counted by the allocator. One test: a second one beside it would be
//! counted too.

#[path = "whole/common/mod.rs"]
mod common;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use common::{load, rotate, rotation};
use peak_alloc::PeakAlloc;
use qoft_core::kernels::ops::{CausalAttention, LinearCrossEntropy};
use qoft_core::kernels::{DenseWeight, FloatFormat, HostOp, HostView};
use qoft_core::ops::Traced;
use qoft_core::{Checkpoint, Layer as _, Linear, LoadedLinear, Norm, adapters};
use qoft_models::CausalLm;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const TOKENS: usize = 512;

/// Bytes that `f` takes at most beyond those in use, and what it returns.
fn peak<R>(f: impl FnOnce() -> R) -> (usize, R) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = f();
    (ALLOCATOR.peak_usage().saturating_sub(before), result)
}

/// Forward and backward of `op`.
fn run(op: &impl HostOp, shapes: &[Vec<usize>]) -> usize {
    let data: Vec<Vec<f32>> = shapes
        .iter()
        .map(|shape| vec![0.1; shape.iter().product()])
        .collect();
    let views = shapes.iter().zip(&data).map(|(s, d)| HostView::new(s, d));
    let views: Vec<HostView> = views.collect();
    let (peak, ()) = peak(|| {
        let out = op.forward(&views, true);
        let grad = HostView::new(&out.shape, &out.data);
        op.backward(&views, &out.saved, grad, &vec![true; views.len()]);
    });
    peak
}

fn attention_grows_with_the_length() {
    let op = CausalAttention::new(0.3, None);
    let peak = |time| run(&op, &vec![vec![1, time, 2, 8]; 3]);
    let (short, long) = (peak(2048), peak(8192));
    println!("attention: {short} bytes at 2048, {long} at 8192");
    assert!(long < 2 * short, "{short} {long}");
    assert!(long < 8192 * 8192 * 4 / 8, "a matrix of scores: {long}");
}

fn logits_never_exist_as_a_whole() {
    let (rows, vocab, width) = (2048, 1 << 15, 8);
    let weight = DenseWeight::from_f32(&vec![0.01; vocab * width], [vocab, width]);
    let op = LinearCrossEntropy::new(Arc::new(weight), Arc::new(vec![Some(7); rows]))
        .with_denominator(rows as f64);
    let peak = run(&op, &[vec![rows, width]]);
    println!("head and cross-entropy: {peak} bytes");
    // All logits would be 256 MiB.
    assert!(peak < 8 << 20, "{peak}");
}

/// Two rows of 256 tokens, and what they predict.
fn long_batch() -> (Tensor<2, Int>, Vec<Option<u32>>) {
    let ids: Vec<i64> = (0..TOKENS).map(|i| (i * 7 % 64) as i64).collect();
    let ids = TensorData::new(ids, [2, TOKENS / 2]);
    (
        Tensor::from_data(ids, &Device::flex()),
        vec![Some(3); TOKENS],
    )
}

/// A step: bytes at most, and bytes that the graph holds between forward and backward.
fn step(model: &CausalLm) -> (usize, usize) {
    let (ids, targets) = long_batch();
    let before = ALLOCATOR.current_usage();
    peak(|| {
        let loss = model.loss(ids, targets, TOKENS as f64);
        let held = ALLOCATOR.current_usage().saturating_sub(before);
        drop(loss.backward());
        held
    })
}

/// The bytes of a step with gradient checkpointing, at most.
fn by_block(model: &CausalLm) -> usize {
    let (ids, targets) = long_batch();
    peak(|| model.backward_by_block(ids, targets, TOKENS as f64, &mut drop)).0
}

fn graphs_keep_little() {
    let mut model = load("mistral");
    rotate(&mut model, 0.0, |_| true);
    // What is made once and stays, such as the tables of positions, is not counted.
    step(&model);
    let (peak, held) = step(&model);
    let checkpointed = by_block(&model);
    adapters::keep_activations_in(&mut model, FloatFormat::Bf16);
    let rounded = step(&model).1;
    println!("held {held}, in bf16 {rounded}; peak {peak}, by block {checkpointed}");
    // Of each of two blocks: its input, queries, keys and values, their result, the input of the
    // second norm, gate and up; and the input of the last norm.
    let checkpoint = Checkpoint::open(qoft_fixtures::path("models/mistral")).unwrap();
    let size = |key: &str| checkpoint.config()[key].as_u64().unwrap() as usize;
    let (hidden, inner) = (size("hidden_size"), size("intermediate_size"));
    let heads = (size("num_attention_heads") + 2 * size("num_key_value_heads")) * size("head_dim");
    let floats = 2 * (3 * hidden + heads + 2 * inner) + hidden;
    let activations = TOKENS * floats * 4;
    assert!(
        held < activations * 5 / 4,
        "{held}, activations {activations}"
    );
    assert!(rounded < held * 2 / 3, "{rounded} {held}");
    assert!(checkpointed < peak * 4 / 5, "{checkpointed} {peak}");
}

/// Of a mixture a graph holds what goes into the activation of each expert, and nothing of the experts'
/// inputs and outputs.
fn mixtures_keep_what_activations_read() {
    let mut model = load("mixtral");
    rotate(&mut model, 0.0, |path| path.contains("self_attn"));
    step(&model);
    let held = step(&model).1;
    let checkpoint = Checkpoint::open(qoft_fixtures::path("models/mixtral")).unwrap();
    let size = |key: &str| checkpoint.config()[key].as_u64().unwrap() as usize;
    let (hidden, inner) = (size("hidden_size"), size("intermediate_size"));
    let (experts, copies) = (size("num_local_experts"), size("num_experts_per_tok"));
    let heads = size("num_attention_heads") + 2 * size("num_key_value_heads");
    let attention = heads * hidden / size("num_attention_heads");
    // Places and weights of a token's experts, and what the router computes them from.
    let router = 2 * experts + 8 * copies;
    let floats = 2 * (3 * hidden + attention + 2 * inner * copies + router) + hidden;
    let activations = TOKENS * floats * 4;
    println!("mixture: held {held}, activations {activations}");
    assert!(held < activations * 5 / 4, "{held} {activations}");
}

/// Bytes that a graph holds of what three layers with rotations read, in `format`; `read` makes it of
/// the leaf of the graph.
fn held_of(format: FloatFormat, read: impl Fn(Traced<2>) -> Traced<2>) -> usize {
    let layers = [1, 2, 3].map(|id| {
        let weight = DenseWeight::from_f32(&[0.1; 2 * WIDTH], [2, WIDTH]);
        let loaded = LoadedLinear::new(weight);
        let mut layer = Linear::new(loaded, &Device::flex());
        layer
            .push_adapter("default", rotation(id, WIDTH, 0.0))
            .unwrap();
        layer.adapters_mut().keep_activations_in(format);
        layer
    });
    let x = Tensor::<2>::ones([ROWS, WIDTH], &Device::flex())
        .autodiff()
        .require_grad();
    let before = ALLOCATOR.current_usage();
    let kept = Traced::from(x.clone()).kept_in(format);
    let [q, k, v] = Linear::forward_each(layers.each_ref(), read(kept));
    let held = ALLOCATOR.current_usage().saturating_sub(before);
    drop((q + k + v).sum().backward());
    held
}

const ROWS: usize = 4096;
const WIDTH: usize = 64;

fn readers_of_a_tensor_share_what_they_keep() {
    let (values, outputs) = (ROWS * WIDTH, 3 * ROWS * 2 * 4);
    let about = |held: usize, bytes: usize| {
        let most = (bytes + outputs) * 11 / 10 + (64 << 10);
        assert!(held < most, "{held}, not more than {most} expected");
    };
    let norm = Norm::root_mean_square(Tensor::ones([WIDTH], &Device::flex()), 1e-5);
    let (mean, bias) = (
        Tensor::ones([WIDTH], &Device::flex()),
        Tensor::zeros([WIDTH], &Device::flex()),
    );
    let layer_norm = Norm::layer(mean, Some(bias), 1e-5);
    let held = |format, norm: &Norm| held_of(format, |x| norm.forward(x));
    // The leaf is there anyway; rounded it is one copy for all. What the norm makes of it is not
    // kept, but made again.
    type Read<'a> = &'a dyn Fn(Traced<2>) -> Traced<2>;
    let reads: [Read; 2] = [&|x| x, &|x| norm.forward(x)];
    for read in reads {
        about(held_of(FloatFormat::F32, read), 0);
        about(held_of(FloatFormat::Bf16, read), 2 * values);
    }
    // This norm's output is kept once, beside its input.
    about(held(FloatFormat::F32, &layer_norm), 4 * values);
    about(held(FloatFormat::Bf16, &layer_norm), 2 * 2 * values);
}

#[test]
fn memory() {
    attention_grows_with_the_length();
    logits_never_exist_as_a_whole();
    graphs_keep_little();
    mixtures_keep_what_activations_read();
    readers_of_a_tensor_share_what_they_keep();
}
