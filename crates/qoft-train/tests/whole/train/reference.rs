//! Losses, gradient norms and weights of whole runs.

use qoft_core::default_device;
use qoft_train::evaluate;
use tempfile::TempDir;

use super::case::{Case, NEVER, Recorder, adapter, changes, cosine, tensors};

/// Trains, and compares everything that the reference has.
pub fn check_case(name: &str) {
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
    let start = tensors(&case.model());
    let reference = changes(adapter(&case, &case.folder), &start);
    let similarity = cosine(&changes(trained, &start), &reference);
    println!("{name}: cosine {similarity}");
    assert!(similarity >= 0.9999, "{name}: cosine {similarity}");

    let device = default_device().unwrap();
    let evaluation = evaluate(&model, &case.dataset, 3, &device, &NEVER, &mut |_, _| {}).unwrap();
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
fn gemma2_all_linear() {
    check_case("gemma2_all_linear");
}

#[test]
fn qwen3_moe_all_linear() {
    check_case("qwen3_moe_all_linear");
}

#[test]
fn mixtral_pair() {
    check_case("mixtral_pair");
}

#[test]
fn qwen2_moe_all_linear() {
    check_case("qwen2_moe_all_linear");
}

/// Batches with padding, of which several make a step.
#[test]
fn qwen3_moe_balanced() {
    check_case("qwen3_moe_balanced");
}

#[test]
fn olmoe_router() {
    check_case("olmoe_router");
}

/// Attention and feed-forward layers side by side.
#[test]
fn cohere2_all_linear() {
    check_case("cohere2_all_linear");
}

/// Norms with biases, and feed-forward layers without a gate.
#[test]
fn starcoder2_bias_all() {
    check_case("starcoder2_bias_all");
}

/// A mixture beside layers that all tokens meet, whose router trains, with its auxiliary loss.
#[test]
fn granitemoehybrid_router() {
    check_case("granitemoehybrid_router");
}

/// The module of a router has another path than files have.
#[test]
fn mixtral_router() {
    check_case("mixtral_router");
}

/// Biases of routers train, those of experts do not.
#[test]
fn gpt_oss_bias_all() {
    check_case("gpt_oss_bias_all");
}

#[test]
fn lfm2_all_linear() {
    check_case("lfm2_all_linear");
}

#[test]
fn qwen3_5_all_linear() {
    check_case("qwen3_5_all_linear");
}

#[test]
fn gemma4_all_linear() {
    check_case("gemma4_all_linear");
}

/// PEFT's own choice of layers.
#[test]
fn gemma4_part() {
    check_case("gemma4_part");
}

/// The names in the adapter are those of the text part by itself.
#[test]
fn qwen3_5_part() {
    check_case("qwen3_5_part");
}

#[test]
fn qwen3_5_moe() {
    check_case("qwen3_5_moe");
}

/// Convolutions train whole.
#[test]
fn lfm2_whole() {
    check_case("lfm2_whole");
}

#[test]
fn gpt_oss_all_linear() {
    check_case("gpt_oss_all_linear");
}

#[test]
fn mistral3_all_linear() {
    check_case("mistral3_all_linear");
}

#[test]
fn glm4_moe_all_linear() {
    check_case("glm4_moe_all_linear");
}

#[test]
fn gemma3_text_part() {
    check_case("gemma3_text_part");
}

/// Smoothed labels, which evaluations do without.
#[test]
fn nf4_smoothed() {
    check_case("nf4_smoothed");
}
