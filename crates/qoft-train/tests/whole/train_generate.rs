//! Generation of text with a loaded model.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use burn::tensor::{Tensor, TensorData};
use qoft_train::{
    End, GenerateError, GenerateOptions, Generated, GenerationConfig, WriteRequest, Writer,
    generate, generate_each,
};
use serde_json::Value;

use crate::fixture_model::FixtureModel;

/// What a model of the fixtures writes behind a prompt.
fn written(model: &str, prompt: &[u32], options: &GenerateOptions) -> Generated {
    let FixtureModel {
        model,
        tokenizer,
        device,
    } = FixtureModel::load(model);
    generate(&model, &tokenizer, prompt, options, &device, &mut |_| ()).unwrap()
}

#[test]
fn texts_are_those_of_transformers() {
    let file = std::fs::read(qoft_fixtures::path("generation/greedy.json")).unwrap();
    let case: Value = serde_json::from_slice(&file).unwrap();
    let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
    let model = case["model"].as_str().unwrap();
    let config: GenerationConfig = serde_json::from_value(case["options"].clone()).unwrap();
    let mut options = config.options();
    options.eos_token_id = Some(Vec::new());
    let text = |options: &GenerateOptions| written(model, &ids("prompt"), options).ids;
    assert_eq!(text(&options), ids("penalized"));
    options.eos_token_id = Some(ids("ends"));
    assert_eq!(text(&options), ids("ended"));
    options.eos_token_id = Some(Vec::new());
    options.repetition_penalty = 1.0;
    assert_eq!(text(&options), ids("free"));
}

#[test]
fn texts_end_with_strings_and_at_lengths() {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = 30;
    options.eos_token_id = Some(Vec::new());
    let prompt = [5, 6, 7];
    let whole = written("llama_nf4", &prompt, &options);
    assert_eq!(whole.ids.len(), 30);
    let middle = whole
        .text
        .char_indices()
        .nth(whole.text.chars().count() / 2);
    let end: String = whole.text[middle.unwrap().0..].chars().take(2).collect();
    options.stop_strings = vec!["never written".to_owned(), end.clone()];
    let ended = written("llama_nf4", &prompt, &options);
    assert!(ended.text.contains(&end), "{} {end:?}", ended.text);
    assert!(whole.text.starts_with(&ended.text) && ended.ids.len() < 30);
    let before: String = ended
        .text
        .chars()
        .take(ended.text.chars().count() - 2)
        .collect();
    assert!(!before.contains(&end), "{} {end:?}", ended.text);

    options.stop_strings.clear();
    options.max_length = Some(10);
    assert_eq!(written("llama_nf4", &prompt, &options).ids, whole.ids[..7]);
}

#[test]
fn generation_with_a_cache_follows_the_likeliest_tokens() {
    // The vocabularies differ; ids without a token have no text.
    let FixtureModel {
        model,
        tokenizer,
        device,
    } = FixtureModel::load("llama_nf4");
    let mut options = GenerateOptions::default();
    options.max_new_tokens = 12;
    let prompt = [5, 6, 7];
    let mut heard = String::new();
    let generated = generate(
        &model,
        &tokenizer,
        &prompt,
        &options,
        &device,
        &mut |text| heard.push_str(text),
    )
    .unwrap();
    assert_eq!(heard, generated.text);
    assert!(!generated.ids.is_empty() && generated.ids.len() <= 12);

    let mut ids = prompt.to_vec();
    for id in &generated.ids {
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let data = TensorData::new(values, [1, ids.len()]);
        let logits = model.last_logits(Tensor::from_data(data, &device), None);
        let best = logits.argmax(1).into_scalar::<i32>();
        assert_eq!(best, *id as i32);
        ids.push(*id);
    }
}

/// Prompts of several lengths, with greedy and drawn tokens.
fn requests() -> Vec<WriteRequest> {
    let prompts: [&[u32]; 7] = [
        &[5, 6, 7],
        &[1],
        &[40, 3, 9, 22, 17, 8, 30, 2],
        &[5, 6],
        &[9, 9, 9, 9],
        &[12, 31],
        &[60, 4, 4, 61, 20],
    ];
    let requests = prompts.into_iter().enumerate().map(|(index, prompt)| {
        let mut options = GenerateOptions::default();
        options.max_new_tokens = 4 + 5 * index;
        options.eos_token_id = Some(Vec::new());
        options.do_sample = index % 2 == 1;
        options.temperature = 1.5;
        options.seed = index as u64;
        WriteRequest::new(prompt.to_vec(), options).with_logprobs(2)
    });
    requests.collect()
}

#[test]
fn texts_that_are_written_together_are_those_of_each_alone() {
    let FixtureModel {
        model,
        tokenizer,
        device,
    } = FixtureModel::load("llama_nf4");
    let alone: Vec<Generated> = requests()
        .iter()
        .map(
            |WriteRequest {
                 prompt, options, ..
             }| {
                generate(&model, &tokenizer, prompt, options, &device, &mut |_| ()).unwrap()
            },
        )
        .collect();
    for batch_size in [1, 3, 7] {
        let mut found = vec![None; alone.len()];
        generate_each::<GenerateError>(
            &model,
            &tokenizer,
            requests(),
            NonZeroUsize::new(batch_size).unwrap(),
            &device,
            &mut |index, text| {
                found[index] = Some(text);
                Ok(())
            },
        )
        .unwrap();
        for (found, alone) in found.into_iter().zip(&alone) {
            let found = found.expect("a text for each prompt");
            assert_eq!(
                (found.ids, found.text),
                (alone.ids.clone(), alone.text.clone())
            );
            assert_eq!(found.end, Some(End::Length));
        }
    }

    // Joining and leaving while others go on; probabilities are told.
    let mut writer = Writer::new(&tokenizer, &device);
    let mut requests = requests().into_iter();
    let (mut keys, mut heard) = (Vec::new(), BTreeMap::new());
    for step in 0..40 {
        if step % 3 == 0
            && let Some(request) = requests.next()
        {
            keys.push(writer.join(&model, request).unwrap().unwrap());
        }
        if step == 20 {
            writer.leave(keys[5]);
        }
        writer.step(&model, &mut |key, written| {
            let written = written.unwrap();
            let logprobs = written.logprobs.expect("they were asked for");
            assert_eq!(logprobs.top.len(), 2);
            assert!(logprobs.own <= logprobs.top[0].1 && logprobs.top[0].1 <= 0.0);
            heard.entry(key).or_insert_with(Vec::new).push(written.id);
        });
    }
    for (index, (key, alone)) in keys.iter().zip(&alone).enumerate() {
        let found = &heard[key];
        match index {
            5 => assert!(alone.ids.starts_with(found) && found.len() < alone.ids.len()),
            6 => assert!(alone.ids.starts_with(found)),
            _ => assert_eq!(*found, alone.ids, "{index}"),
        }
    }
}
