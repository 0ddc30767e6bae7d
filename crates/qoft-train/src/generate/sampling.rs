//! The choice of a token.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use qoft_core::Random;

use super::options::GenerateOptions;

/// A token and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored {
    score: f32,
    id: usize,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    /// Of equal scores the later token is larger: transformers drops the earlier ones first.
    fn cmp(&self, other: &Self) -> Ordering {
        let scores = self.score.total_cmp(&other.score);
        scores.then(self.id.cmp(&other.id))
    }
}

/// The next token behind `text`, of which the first `prompt` tokens were given; nothing if the logits are no
/// numbers.
pub fn choose(
    logits: &[f32],
    text: &[u32],
    prompt: usize,
    options: &GenerateOptions,
    random: &mut Random,
) -> Option<u32> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let scores = changed(logits, text, prompt, options);
    let id = match options.do_sample {
        false => likeliest(&scores)?,
        true => {
            let kept = kept(scores, options);
            let mut left = random.unit() * kept.iter().map(|(_, weight)| weight).sum::<f64>();
            let chosen = kept.iter().find(|(_, weight)| {
                left -= weight;
                left < 0.0
            });
            chosen.or(kept.last())?.0
        }
    };
    u32::try_from(id).ok()
}

/// The first of the largest scores.
fn likeliest(scores: &[f32]) -> Option<usize> {
    let larger = |best, value: &f32| if *value > best { *value } else { best };
    let largest = scores.iter().fold(f32::NEG_INFINITY, larger);
    scores.iter().position(|score| *score == largest)
}

/// Scores with all that is added to them, in vLLM's order: what each token has of its own, then penalties for
/// being in the text, and for having been written.
fn changed(logits: &[f32], text: &[u32], prompt: usize, options: &GenerateOptions) -> Vec<f32> {
    let mut scores = logits.to_vec();
    for (id, bias) in &options.logit_bias {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score += *bias as f32;
        }
    }
    if options.repetition_penalty != 1.0 {
        let penalty = options.repetition_penalty as f32;
        for id in text.iter().copied().collect::<BTreeSet<u32>>() {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score < 0.0 {
                    *score * penalty
                } else {
                    *score / penalty
                };
            }
        }
    }
    let presence = options.presence_penalty as f32;
    let frequency = options.frequency_penalty as f32;
    if presence != 0.0 || frequency != 0.0 {
        let mut counts = BTreeMap::<u32, u32>::new();
        for id in &text[prompt..] {
            *counts.entry(*id).or_default() += 1;
        }
        for (id, count) in counts {
            if let Some(score) = scores.get_mut(id as usize) {
                *score -= frequency * count as f32;
                *score -= presence;
            }
        }
    }
    scores
}

/// The tokens that are drawn from, with their probabilities times a common factor. In transformers' order:
/// temperature, top-k, top-p, min-p. Only the tokens that top-p keeps are put in order.
fn kept(mut scores: Vec<f32>, options: &GenerateOptions) -> Vec<(usize, f64)> {
    if options.temperature != 1.0 {
        let temperature = options.temperature as f32;
        scores.iter_mut().for_each(|score| *score /= temperature);
    }
    let bound = match options.top_k {
        k if k > 0 && k < scores.len() => {
            let mut others = scores.clone();
            let falling = |a: &f32, b: &f32| b.total_cmp(a);
            *others.select_nth_unstable_by(k - 1, falling).1
        }
        _ => f32::NEG_INFINITY,
    };
    let possible = scores.into_iter().enumerate();
    let possible = possible.filter(|(_, score)| *score >= bound && *score > f32::NEG_INFINITY);
    let mut possible: Vec<Scored> = possible.map(|(id, score)| Scored { score, id }).collect();
    let Some(top) = possible.iter().max().map(|top| f64::from(top.score)) else {
        return Vec::new();
    };
    let weight = |scored: &Scored| match f64::from(scored.score) - top {
        // Also of two infinite scores.
        difference if difference.is_nan() => 1.0,
        difference => difference.exp(),
    };
    if options.top_p < 1.0 {
        let wanted = options.top_p * possible.iter().map(weight).sum::<f64>();
        let mut heap = BinaryHeap::from(std::mem::take(&mut possible));
        let mut sum = 0.0;
        while let Some(scored) = heap.pop() {
            possible.push(scored);
            sum += weight(&scored);
            if sum >= wanted {
                break;
            }
        }
    }
    let weighted = possible.iter().map(|scored| (scored.id, weight(scored)));
    weighted
        .filter(|(_, weight)| *weight >= options.min_p)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::options::GenerationConfig;
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, 2.0];

    fn sampling() -> GenerateOptions {
        GenerateOptions {
            do_sample: true,
            ..GenerateOptions::default()
        }
    }

    fn draws(options: &GenerateOptions, seed: u64) -> Vec<u32> {
        let mut random = Random::new(seed);
        (0..400)
            .map(|_| choose(&LOGITS, &[], 0, options, &mut random).unwrap())
            .collect()
    }

    /// The tokens that transformers' processors leave, and their probabilities.
    #[test]
    fn probabilities_are_those_of_transformers() {
        let file = std::fs::read(qoft_fixtures::path("generation/processors.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&file).unwrap();
        assert!(cases.len() >= 12);
        for case in cases {
            let numbers =
                |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
            let logits: Vec<f32> = numbers("logits").into_iter().map(|v| v as f32).collect();
            let text: Vec<u32> = serde_json::from_value(case["input_ids"].clone()).unwrap();
            let config: GenerationConfig = serde_json::from_value(case["options"].clone()).unwrap();
            let options = config.options();
            options.validate().unwrap();
            let scores = changed(&logits, &text, text.len(), &options);
            let kept = kept(scores, &options);
            let sum: f64 = kept.iter().map(|(_, weight)| weight).sum();
            let mut found = vec![0.0; logits.len()];
            for (id, weight) in kept {
                found[id] = weight / sum;
            }
            for (id, (found, expected)) in found.iter().zip(numbers("probabilities")).enumerate() {
                let options = &case["options"];
                assert_eq!(*found == 0.0, expected == 0.0, "{options} {id}");
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{options} {id}: {found} {expected}"
                );
            }
        }
    }

    /// What vLLM's penalties and biases make of logits.
    #[test]
    fn scores_are_those_of_vllm() {
        let file = std::fs::read(qoft_fixtures::path("penalties.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&file).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let numbers =
                |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
            let ids =
                |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
            let logits: Vec<f32> = numbers("logits").into_iter().map(|v| v as f32).collect();
            let (prompt, mut text) = (ids("prompt"), ids("prompt"));
            text.extend(ids("text"));
            let own = &case["options"];
            let number = |key: &str, default: f64| own[key].as_f64().unwrap_or(default);
            let bias = own["logit_bias"].as_object().cloned().unwrap_or_default();
            let bias = bias.iter();
            let options = GenerateOptions {
                repetition_penalty: number("repetition_penalty", 1.0),
                presence_penalty: number("presence_penalty", 0.0),
                frequency_penalty: number("frequency_penalty", 0.0),
                logit_bias: bias
                    .map(|(id, bias)| (id.parse().unwrap(), bias.as_f64().unwrap()))
                    .collect(),
                ..GenerateOptions::default()
            };
            options.validate().unwrap();
            let found = changed(&logits, &text, prompt.len(), &options);
            for (id, (found, expected)) in found.iter().zip(numbers("scores")).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error < 1e-5 * expected.abs().max(1.0),
                    "{own} {id}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn without_draws_the_first_of_the_likeliest_is_chosen() {
        let options = GenerateOptions::default();
        assert!(draws(&options, 1).iter().all(|id| *id == 1));
        let mut random = Random::new(1);
        let mut choose = |text: &[u32], penalty| {
            let options = GenerateOptions {
                repetition_penalty: penalty,
                ..GenerateOptions::default()
            };
            choose(&LOGITS, text, text.len(), &options, &mut random)
        };
        assert_eq!(choose(&[1, 1, 9], 1.5), Some(3));
        assert_eq!(choose(&[1, 3], 2.5), Some(2));
    }

    #[test]
    fn choices_follow_the_probabilities_and_the_seed() {
        let ids = draws(&sampling(), 1);
        assert_eq!(ids, draws(&sampling(), 1));
        assert_ne!(ids, draws(&sampling(), 2));
        let count = |id| ids.iter().filter(|found| **found == id).count();
        assert!(count(1) > count(2) && count(2) > count(0) && count(0) > 0);
    }

    #[test]
    fn top_p_leaves_the_tail_out() {
        let with = |top_p| GenerateOptions {
            top_p,
            ..sampling()
        };
        // The two likeliest have 0.40 each; of these the later one stays.
        assert!(draws(&with(0.7), 1).iter().all(|id| [1, 3].contains(id)));
        assert!(draws(&with(0.1), 1).iter().all(|id| *id == 3));
    }

    #[test]
    fn logits_that_are_no_numbers_have_no_choice() {
        let mut random = Random::new(0);
        for options in [sampling(), GenerateOptions::default()] {
            assert_eq!(
                choose(&[0.0, f32::NAN], &[], 0, &options, &mut random),
                None
            );
            let infinite = [0.0, f32::INFINITY];
            assert_eq!(choose(&infinite, &[], 0, &options, &mut random), Some(1));
        }
        let nothing = [f32::NEG_INFINITY; 2];
        assert_eq!(choose(&nothing, &[], 0, &sampling(), &mut random), None);
    }
}
