//! The tokenizer against what the tokenizers of transformers say, and the files around it.

use std::fs;

use qoft_train::chat::Variables;
use qoft_train::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture() -> (Tokenizer, Vec<Value>) {
    let folder = qoft_fixtures::path("tokenizer");
    let expected: Value =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let texts = expected["texts"].as_array().unwrap().clone();
    assert!(!texts.is_empty());
    (Tokenizer::from_dir(&folder).unwrap(), texts)
}

/// A folder with the fixture's `tokenizer.json` and other files.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(
        qoft_fixtures::path("tokenizer/tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    for (name, content) in files {
        let content = match content {
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn load(files: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_dir(folder(files).path())
}

#[test]
fn texts_become_the_same_ids_and_back() {
    let (tokenizer, texts) = fixture();
    for case in &texts {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(json!(ids), case["ids"], "{text:?}");
        let with_special = tokenizer.encode(text, true).unwrap();
        assert_eq!(json!(with_special), case["ids_with_special"], "{text:?}");
        assert_eq!(
            json!(tokenizer.decode(&ids, false).unwrap()),
            case["decoded"]
        );
        assert_eq!(
            json!(tokenizer.decode(&ids, true).unwrap()),
            case["decoded_skip_special"]
        );
    }
}

#[test]
fn offsets_are_bytes_of_the_text() {
    let (tokenizer, _) = fixture();
    let encoded = tokenizer.encode_with_offsets("é, Paris", true).unwrap();
    assert_eq!(encoded.ids, tokenizer.encode("é, Paris", true).unwrap());
    assert_eq!(encoded.offsets[0], (0, 0), "the token that begins the text");
    assert_eq!(encoded.offsets[1].0, 0);
    assert_eq!(encoded.offsets.last().unwrap().1, "é, Paris".len());
}

#[test]
fn a_stream_gives_whole_characters_and_loses_nothing() {
    let (tokenizer, texts) = fixture();
    let mut held_back = 0;
    for case in &texts {
        let ids = tokenizer
            .encode(case["text"].as_str().unwrap(), true)
            .unwrap();
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for &id in &ids {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{piece:?}");
            held_back += usize::from(piece.is_empty());
            text += &piece;
        }
        assert_eq!(stream.finish().unwrap(), "");
        assert_eq!(json!(text), case["decoded_skip_special"]);
    }
    assert!(
        held_back > texts.len(),
        "some characters take several tokens"
    );
}

#[test]
fn a_stream_that_ends_within_a_character_says_so() {
    let (tokenizer, _) = fixture();
    let ids = tokenizer.encode("a🙂", false).unwrap();
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = ids[..ids.len() - 1]
        .iter()
        .map(|&id| stream.push(id).unwrap())
        .collect();
    assert_eq!(pieces.concat(), "a");
    assert!(stream.finish().unwrap().contains('\u{FFFD}'));
}

#[test]
fn special_ids_come_from_the_tokenizer_and_the_model() {
    let (tokenizer, _) = fixture();
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()),
        (Some(1), Some(4), Some(0))
    );
    assert_eq!(tokenizer.stop_ids(), [4]);
    let tokenizer = load(&[
        (
            "tokenizer_config.json",
            json!({"eos_token": {"content": "<|im_end|>"}}),
        ),
        (
            "special_tokens_map.json",
            json!({"eos_token": "<pad>", "bos_token": "<|bos|>"}),
        ),
        ("generation_config.json", json!({"eos_token_id": [2, 4]})),
        ("config.json", json!({"eos_token_id": 7})),
    ])
    .unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(4)));
    assert_eq!(tokenizer.stop_ids(), [2, 4]);
    let tokenizer = load(&[("config.json", json!({"eos_token_id": 2}))]).unwrap();
    assert_eq!(
        (tokenizer.eos_id(), tokenizer.stop_ids()),
        (Some(2), vec![2])
    );
}

#[test]
fn the_template_file_goes_before_the_default_of_the_configuration() {
    let render = |tokenizer: &Tokenizer| {
        let template = tokenizer.chat_template().unwrap();
        template.render(&[], &Variables::new(), false).unwrap()
    };
    let one = json!({"chat_template": "one {{ eos_token }}", "eos_token": "<|im_end|>"});
    let several = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "default"},
    ]});
    let config = |config: &Value| ("tokenizer_config.json", config.clone());
    assert_eq!(render(&load(&[config(&one)]).unwrap()), "one <|im_end|>");
    assert_eq!(render(&load(&[config(&several)]).unwrap()), "default");
    let file = ("chat_template.jinja", json!("file"));
    assert_eq!(render(&load(&[config(&one), file]).unwrap()), "file");
    let none = load(&[]).unwrap().chat_template();
    assert!(matches!(none, Err(TokenizerError::NoChatTemplate { .. })));
}

#[test]
fn cutting_and_padding_in_the_file_are_ignored() {
    let path = qoft_fixtures::path("tokenizer/tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    let tokenizer = load(&[("tokenizer.json", file)]).unwrap();
    assert_eq!(
        tokenizer.encode("Hello there!", false).unwrap(),
        [317, 267, 278, 5]
    );
}

#[test]
fn broken_files_are_named() {
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        let error = load(&[(name, json!("{"))]).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{name} is broken")),
            "{error}"
        );
    }
    let error = load(&[("config.json", json!({"eos_token_id": "2"}))]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("config.json is broken: eos_token_id"),
        "{error}"
    );
}
