//! Which answers a model finds the likeliest, as lm-evaluation-harness measures it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::Device;
use qoft_models::{CausalLm, Targets};

use super::question::Question;
use crate::data::{Batch, Example, IGNORED};
use crate::error::TrainError;
use crate::inputs::{targets, tokens};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// How often a model finds the right answer.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ChoiceEvaluation {
    /// The share of questions whose right answer is the likeliest (`acc`).
    pub accuracy: f64,
    /// The same with likelihoods divided by the characters of the answers (`acc_norm`): long answers are
    /// unlikely for their length alone.
    pub accuracy_norm: f64,
    /// Standard errors of both.
    pub accuracy_stderr: f64,
    /// See above.
    pub accuracy_norm_stderr: f64,
    /// Mean cross entropy of the tokens of the right answers, in nats.
    pub loss: f64,
    /// The number of questions.
    pub questions: usize,
    /// Tokens of the right answers.
    pub tokens: usize,
}

/// An answer behind its question, as tokens.
struct Answered {
    example: Example,
    question: usize,
    choice: usize,
}

/// Evaluates `model` on `questions` with `batch_size` answers at a time.
///
/// An answer stands behind its question and a space. Of a text with more than `longest` tokens the front is
/// cut off. `progress` is called after each batch with the numbers of batches done and of all.
///
/// # Errors
/// [`TrainError::Config`] for a `batch_size` of 0 and a tokenizer that fails, and [`TrainError::Stopped`] once
/// `stop` is true.
pub fn evaluate_choices(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    questions: &[Question],
    (batch_size, longest): (usize, usize),
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ChoiceEvaluation, TrainError> {
    let batch_size = NonZeroUsize::new(batch_size).ok_or(TrainError::Config {
        key: "batch_size",
        reason: "must be at least 1".into(),
    })?;
    let model = model.valid();
    let mut answers = Vec::new();
    for (question, asked) in questions.iter().enumerate() {
        for choice in 0..asked.choices.len() {
            let example = encoded(tokenizer, asked, choice, longest);
            let example = example.map_err(|error| TrainError::Config {
                key: "tokenizer",
                reason: error.to_string(),
            })?;
            answers.push(Answered {
                example,
                question,
                choice,
            });
        }
    }
    // Answers of about the same length have little padding.
    answers.sort_by_key(|answer| answer.example.input_ids.len());
    let mut likely: Vec<Vec<f64>> = questions
        .iter()
        .map(|question| vec![0.0; question.choices.len()])
        .collect();
    let (mut loss, mut tokens_of_right) = (0.0, 0);
    let batches = answers.chunks(batch_size.get());
    let total = batches.len();
    for (done, answers) in batches.enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        let rows: Vec<&Example> = answers.iter().map(|answer| &answer.example).collect();
        for (answer, sum) in answers
            .iter()
            .zip(losses(&model, &Batch::new(&rows), device))
        {
            likely[answer.question][answer.choice] = -sum;
            if answer.choice == questions[answer.question].answer {
                loss += sum;
                tokens_of_right += answer.example.predicted();
            }
        }
        progress(done + 1, total);
    }
    let loss = loss / tokens_of_right.max(1) as f64;
    if !loss.is_finite() {
        return Err(TrainError::EvaluationNotFinite { step: None, loss });
    }
    let share = |score: &dyn Fn(&Question, usize, f64) -> f64| {
        let right = questions.iter().zip(&likely).filter(|(question, likely)| {
            let scores = likely.iter().enumerate();
            let scores: Vec<f64> = scores.map(|(at, sum)| score(question, at, *sum)).collect();
            first_largest(&scores) == Some(question.answer)
        });
        right.count() as f64 / questions.len().max(1) as f64
    };
    let accuracy = share(&|_, _, sum| sum);
    let accuracy_norm =
        share(&|question, at, sum| sum / question.choices[at].chars().count().max(1) as f64);
    let count = questions.len();
    let stderr =
        |share: f64| (share * (1.0 - share) / count.saturating_sub(1).max(1) as f64).sqrt();
    Ok(ChoiceEvaluation {
        accuracy,
        accuracy_norm,
        accuracy_stderr: stderr(accuracy),
        accuracy_norm_stderr: stderr(accuracy_norm),
        loss,
        questions: count,
        tokens: tokens_of_right,
    })
}

fn first_largest(scores: &[f64]) -> Option<usize> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter().position(|score| *score == largest)
}

/// A question with one of its answers, of which the answer is predicted. Spaces at the end of a question
/// belong to the answer: tokens begin with them.
fn encoded(
    tokenizer: &Tokenizer,
    question: &Question,
    choice: usize,
    longest: usize,
) -> Result<Example, TokenizerError> {
    let text = question.text.trim_end();
    let spaces = &question.text[text.len()..];
    let spaces = if spaces.is_empty() { " " } else { spaces };
    let before = tokenizer.encode(text, true)?;
    let mut ids = tokenizer.encode(&format!("{text}{spaces}{}", question.choices[choice]), true)?;
    // The first token of a row is not predicted.
    let start = before.len().min(ids.len().saturating_sub(1)).max(1);
    let cut = ids.len().saturating_sub(longest);
    ids.drain(..cut);
    let start = start.saturating_sub(cut).max(1);
    let learned = |(at, id): (usize, &u32)| match at < start {
        true => IGNORED,
        // Ids of a tokenizer are small.
        false => *id as i32,
    };
    let labels = ids.iter().enumerate().map(learned).collect();
    Ok(Example::new(ids, labels))
}

/// The sums of the losses of each row.
fn losses(model: &CausalLm, batch: &Batch, device: &Device) -> Vec<f64> {
    let time = batch.seq_len.max(1);
    let labels = targets(batch);
    let groups = (0..labels.len()).map(|at| (at / time) as u32).collect();
    let wanted = Targets::new(labels).in_groups(groups, batch.batch_size);
    let found = model.losses(tokens(batch, device), wanted, 1.0);
    found.sums.into_data().iter::<f64>().collect()
}
