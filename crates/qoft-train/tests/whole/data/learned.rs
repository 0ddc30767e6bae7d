//! Which tokens of a row are learned: completions, turns, masks and weights.

use super::*;

/// The fixture's tokenizer with offsets that leave out white space, as Llama 3 has them.
fn trimming_tokenizer() -> Tokenizer {
    let path = qoft_fixtures::path("tokenizer/tokenizer.json");
    let mut rules: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
    });
    let processors = [byte_level, rules["post_processor"].take()];
    rules["post_processor"] = json!({"type": "Sequence", "processors": processors});
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("tokenizer.json"), rules.to_string()).unwrap();
    let config = qoft_fixtures::path("tokenizer/tokenizer_config.json");
    fs::copy(config, folder.path().join("tokenizer_config.json")).unwrap();
    Tokenizer::from_dir(folder.path()).unwrap()
}

#[test]
fn only_the_completion_is_learned_wherever_it_starts() {
    let text = "Answer: naïve café 你好 🙂, two  spaces \n\n done ";
    let whole = example(json!({"text": text}));
    let decode = |ids: &[u32]| tokenizer().decode(ids, false).unwrap();
    let tokenizers = [tokenizer(), trimming_tokenizer()];
    let starts = text.char_indices().skip(1).map(|(start, _)| start);
    for (start, tokenizer) in starts.flat_map(|start| tokenizers.each_ref().map(|t| (start, t))) {
        let (prompt, completion) = text.split_at(start);
        let rows = lines(&[json!({"prompt": prompt, "completion": completion})]);
        let dataset = Dataset::load(&rows.path, tokenizer, &OPTIONS, None).unwrap();
        let Example {
            input_ids, labels, ..
        } = &dataset.examples[0];
        assert_eq!(
            *input_ids, whole.input_ids,
            "the text is tokenized as a whole"
        );
        let is_learned = |&label: &i32| label != IGNORED;
        let first = labels.iter().position(is_learned).unwrap();
        assert!(
            labels[first..].iter().all(is_learned),
            "{completion:?} has a gap"
        );
        let end = format!("{completion}<|im_end|>");
        assert!(
            decode(&input_ids[first..]).ends_with(&end),
            "all of {end:?} is learned"
        );
        let through_first = decode(&input_ids[1..=first]);
        assert!(
            through_first.len() > start,
            "a token of {prompt:?} is learned"
        );
    }
}

#[test]
fn messages_are_rendered_and_the_assistants_turns_are_learned() {
    let path = qoft_fixtures::path("tokenizer/expected.json");
    let expected: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let messages = &expected["chat"]["messages"];
    let example = example(json!({"messages": messages, "id": 3}));
    assert_eq!(json!(example.input_ids.to_vec()), expected["chat"]["ids"]);
    assert_eq!(learned(&example), " 4 <|im_end|>Stimmt – 🙂.<|im_end|>");
}

#[test]
fn a_completion_of_messages_is_learned_with_the_template_around_it() {
    let example = example(json!({
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello"}],
    }));
    assert_eq!(learned(&example), "Hello<|im_end|>\n");
}

/// The learned text of the only row in a file.
fn learned_of(row: Value) -> String {
    learned(&example(row))
}

#[test]
fn masks_along_the_ids_are_honoured() {
    let ids = json!([1, 317, 267, 278, 5]);
    let row = |more: Value| {
        let mut row = json!({"input_ids": ids});
        row.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        row
    };
    let labels = |more: Value| example(row(more)).labels;
    assert_eq!(labels(json!({})), [1, 317, 267, 278, 5]);
    assert_eq!(
        labels(json!({"completion_mask": [0, 0, 1, 1, 1]})),
        [-100, -100, 267, 278, 5]
    );
    let both = json!({"completion_mask": [0, 1, 1, 1, 1], "assistant_masks": [true, true, false, true, true]});
    assert_eq!(labels(both), [-100, 317, -100, 278, 5]);
    let padded = json!({"completion_mask": [0, 1, 1, 0, 0], "attention_mask": [1, 1, 1, 0, 0]});
    assert_eq!(labels(padded), [-100, 317, 267]);
    let own = json!({"labels": [-100, 2, 3, 4, 5], "completion_mask": [1, 1, 0, 1, 1]});
    assert_eq!(labels(own), [-100, 2, -100, 4, 5]);
    for (more, expected) in [
        (
            json!({"completion_mask": [1]}),
            "completion_mask has 1 entries, but input_ids has 5",
        ),
        (
            json!({"completion_mask": [1, 1, 1, 1, 2]}),
            "completion_mask must be a list of 0 and 1",
        ),
        (
            json!({"loss_mask": [1, 1, 1, 1, 1]}),
            "loss_mask would change what is learned",
        ),
    ] {
        let error = load(&lines(&[row(more)])).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn weights_of_rows_are_honoured() {
    let texts = |weights: Value| json!({"text": "Hello there!", "weight": weights});
    assert_eq!(
        learned_of(texts(json!(1.0))),
        learned_of(texts(json!(null)))
    );
    let dataset = load(&lines(&[texts(json!(0)), texts(json!(1))])).unwrap();
    assert_eq!(dataset.report.unpredictable_rows, 1);
    assert!(
        dataset.examples[0]
            .labels
            .iter()
            .all(|&label| label == IGNORED)
    );
    for (row, expected) in [
        (texts(json!(0.5)), "weight must be 0 or 1"),
        (
            json!({"text": "a", "train": "no"}),
            "train must be true or false",
        ),
        (
            json!({"text": "a", "completion_mask": [1]}),
            "completion_mask needs input_ids",
        ),
        (
            json!({"text": "a", "sample_weight": 2}),
            "sample_weight would change what is learned",
        ),
    ] {
        let error = load(&lines(&[row])).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn weights_of_messages_are_honoured() {
    let folder = TempDir::new().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = qoft_fixtures::path(&format!("tokenizer/{name}"));
        fs::copy(path, folder.path().join(name)).unwrap();
    }
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
    let row = |first: Value, more: Value| {
        let mut answer = json!({"role": "assistant", "content": "one"});
        answer
            .as_object_mut()
            .unwrap()
            .extend(first.as_object().unwrap().clone());
        let mut row = json!({"messages": [
            {"role": "user", "content": "a", "weight": 0}, answer,
            {"role": "user", "content": "b"}, {"role": "assistant", "content": "two"},
        ]});
        row.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        lines(&[row])
    };
    let learned_of = |file: &DataFile| {
        let dataset = Dataset::load(&file.path, &tokenizer, &OPTIONS, None).unwrap();
        learned(&dataset.examples[0])
    };
    let (none, last) = ("one<|im_end|>two<|im_end|>", "two<|im_end|>");
    assert_eq!(learned_of(&row(json!({}), json!({}))), none);
    assert_eq!(learned_of(&row(json!({"weight": 1}), json!({}))), none);
    assert_eq!(learned_of(&row(json!({"weight": 0}), json!({}))), last);
    assert_eq!(learned_of(&row(json!({"train": false}), json!({}))), last);
    assert_eq!(
        learned_of(&row(json!({"training": false}), json!({}))),
        last
    );
    assert_eq!(
        learned_of(&row(json!({}), json!({"mask_history": true}))),
        last
    );
    assert_eq!(
        learned_of(&row(json!({}), json!({"mask_history": false}))),
        none
    );
    let tools = json!({"tools": "[{\"name\": \"f\"}]"});
    assert_eq!(learned_of(&row(json!({}), tools)), none);
    let error = Dataset::load(
        &row(json!({"weight": 2}), json!({})).path,
        &tokenizer,
        &OPTIONS,
        None,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("weight must be 0 or 1")
    );
    let completion = json!({
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b", "weight": 0}],
    });
    let error = Dataset::load(&lines(&[completion]).path, &tokenizer, &OPTIONS, None);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("completion is learned whole")
    );
}
