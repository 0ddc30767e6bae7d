//! The backward block by block gives the gradients of the whole graph.

use crate::common::{ByLayer, CASES, add, batch, cosine, load, loss, rotate};
use qoft_core::kernels::FloatFormat;
use qoft_core::{Draw, Walk, adapters};
use qoft_models::{CausalLm, Losses, TrainingBatch};

/// Of the rows of [`batch`] without what counts as padding.
const LENGTHS: [usize; 2] = [8, 6];

fn whole(model: &CausalLm) -> (f32, ByLayer) {
    let ((ids, targets, count), mut sum) = (batch(), ByLayer::new());
    let batch = TrainingBatch::new(ids, targets, &LENGTHS).divided_by(count);
    let loss = model.training_loss(batch, &|losses| losses.sums.sum());
    add(&mut sum, loss.backward(), model);
    (loss.into_scalar(), sum)
}

fn by_block(model: &CausalLm) -> (f32, ByLayer) {
    let ((ids, targets, count), mut sum) = (batch(), ByLayer::new());
    let mut sink = |part| add(&mut sum, part, model);
    let batch = TrainingBatch::new(ids, targets, &LENGTHS).divided_by(count);
    let all = |losses: Losses| losses.sums.sum();
    let loss = model.training_backward_by_block(batch, &all, &mut sink);
    (loss, sum)
}

#[test]
fn gradients_are_the_same_bit_by_bit() {
    for case in CASES {
        let mut model = load(case);
        rotate(&mut model, 0.0, |_| true);
        let (expected, found) = (whole(&model), by_block(&model));
        let layers = model.layers().into_iter();
        let adapted = layers.filter(|(_, layer)| !layer.adapters().slots().is_empty());
        assert_eq!(expected.1.len(), adapted.count(), "{case}");
        assert_eq!(expected, found, "{case}");
    }
}

#[test]
fn the_loss_of_routers_flows_through_all_blocks() {
    for case in ["mixtral", "qwen2_moe"] {
        let mut model = load(case);
        rotate(&mut model, 0.0, |path| path.contains("self_attn"));
        let plain = whole(&model);
        model.set_router_aux_loss_coef(0.5).unwrap();
        let balanced = whole(&model);
        assert_eq!(balanced, by_block(&model), "{case}");
        // Evenly distributed tokens would add 0.5 times the number of experts of a token.
        assert!(balanced.0 > plain.0 + 1.0, "{case}");
        assert_ne!(plain.1, balanced.1, "{case}");
        let (ids, targets, count) = batch();
        let without = model.loss(ids, targets, count).into_scalar::<f32>();
        assert_eq!(without, plain.0, "only training adds it");
    }
    let error = load("qwen3").set_router_aux_loss_coef(0.5).unwrap_err();
    assert!(error.to_string().contains("no mixture"), "{error}");
}

#[test]
fn dropout_draws_the_same_in_both_passes() {
    let model = || {
        let mut model = load("qwen3");
        rotate(&mut model, 0.4, |path| path.contains("proj"));
        model
    };
    let at = |model: &mut CausalLm, draw| adapters::begin(model, draw);
    let mut plain = model();
    let draws = [[0, 0], [0, 1], [1, 0]].map(|[step, batch]| Draw::new(7, step, batch));
    let passes = draws.map(|draw| {
        at(&mut plain, draw);
        whole(&plain)
    });
    assert_ne!(passes[0], passes[1], "each micro-batch has its own dropout");
    assert_ne!(passes[0], passes[2], "each step has its own dropout");
    // In whatever order they come: a run that goes on draws what it would have drawn.
    let mut checkpointed = model();
    for (draw, expected) in draws.into_iter().zip(passes).rev() {
        at(&mut checkpointed, draw);
        assert_eq!(expected, by_block(&checkpointed));
    }
    at(&mut plain, Draw::new(8, 0, 0));
    assert_ne!(
        whole(&plain),
        by_block(&checkpointed),
        "each seed has its own dropout"
    );
}

#[test]
fn blocks_below_all_adapters_have_no_backward() {
    for wanted in ["lm_head", "layers.1.", "layers.0.mlp", "embed_tokens"] {
        let mut model = load("llama_bias");
        rotate(&mut model, 0.0, |path| path.contains(wanted));
        let expected = whole(&model);
        assert!(!expected.1.is_empty(), "{wanted}");
        assert_eq!(expected, by_block(&model), "{wanted}");
    }
    // Nothing trains: there is a loss, and nothing else.
    let model = load("llama_bias");
    let expected: f32 = loss(&model).into_scalar();
    assert_eq!(by_block(&model), (expected, ByLayer::new()));
}

#[test]
fn rounded_activations_keep_the_direction_of_the_gradients() {
    for case in CASES {
        let mut model = load(case);
        rotate(&mut model, 0.0, |_| true);
        let exact = whole(&model);
        adapters::keep_activations_in(&mut model, FloatFormat::Bf16);
        for (loss, gradients) in [whole(&model), by_block(&model)] {
            assert_eq!(loss, exact.0, "the forward is not rounded");
            assert_ne!(gradients, exact.1, "{case}");
            let similarity = cosine(&gradients, &exact.1);
            println!("{case}: {similarity}");
            // From a rounded input of its block a ReLU is on the other side of 0 here and there.
            let enough = if *case == "gpt2_options" {
                0.99
            } else {
                0.9999
            };
            assert!(similarity > enough, "{case}: {similarity}");
        }
    }
}
