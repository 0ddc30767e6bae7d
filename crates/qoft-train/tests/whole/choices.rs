//! Questions with several answers, as lm-evaluation-harness measures them.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use qoft_train::multiple_choice::{ChoiceEvaluation, Question, evaluate_choices};
use serde_json::Value;

use crate::fixture_model::FixtureModel;

fn evaluated(model: &str, questions: &[Question], batch_size: usize) -> ChoiceEvaluation {
    let FixtureModel {
        model,
        tokenizer,
        device,
    } = FixtureModel::load(model);
    let stop = AtomicBool::new(false);
    let sizes = (batch_size, 64);
    let found = evaluate_choices(
        &model,
        &tokenizer,
        questions,
        sizes,
        &device,
        &stop,
        &mut |_, _| {},
    );
    found.unwrap()
}

#[test]
fn accuracies_are_those_of_the_harness() {
    let folder = qoft_fixtures::path("choices");
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let questions = Question::read(&folder.join("questions.jsonl"), None).unwrap();
    let number = |key: &str| expected[key].as_f64().unwrap();
    let likely: Vec<Vec<f64>> =
        serde_json::from_value(expected["log_likelihoods"].clone()).unwrap();
    assert_eq!(likely.len(), questions.len());
    // The two differ, or one of them was not compared.
    assert_ne!(number("acc"), number("acc_norm"));
    for batch_size in [1, 7] {
        let found = evaluated(expected["model"].as_str().unwrap(), &questions, batch_size);
        for (name, found) in [
            ("acc", found.accuracy),
            ("acc_norm", found.accuracy_norm),
            ("acc_stderr", found.accuracy_stderr),
            ("acc_norm_stderr", found.accuracy_norm_stderr),
        ] {
            assert!((found - number(name)).abs() < 1e-9, "{name}: {found}");
        }
        let right = questions.iter().zip(&likely);
        let sum: f64 = right
            .map(|(question, likely)| -likely[question.answer])
            .sum();
        let loss = sum / NonZeroUsize::new(found.tokens).unwrap().get() as f64;
        assert!(
            (found.loss - loss).abs() < 1e-6 * loss,
            "{} {loss}",
            found.loss
        );
    }
}
