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
    // As in transformers, the map replaces the configuration.
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(0)));
    assert_eq!(tokenizer.stop_ids(), [2, 4, 0]);
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
fn tokens_of_other_files_are_added_as_in_transformers() {
    let file = fs::read(qoft_fixtures::path("added_tokens.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let texts = file["texts"].as_array().unwrap();
    for case in file["cases"].as_array().unwrap() {
        let files = case["files"].as_object().unwrap();
        let mut files: Vec<(&str, Value)> = files
            .iter()
            .map(|(name, content)| (&**name, content.clone()))
            .collect();
        let template = json!("{{ (bos_token, eos_token, pad_token, image_token) | list }}");
        files.push(("chat_template.jinja", template));
        let tokenizer = load(&files).unwrap();
        for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let text = text.as_str().unwrap();
            let found = tokenizer.encode(text, false).unwrap();
            assert_eq!(json!(found), *ids, "{text:?} with {}", case["files"]);
        }
        let shown = |name: &str| match case["special_tokens"][name].as_str() {
            Some(token) => format!("'{token}'"),
            None => "Undefined".to_owned(),
        };
        let names = ["bos_token", "eos_token", "pad_token", "image_token"].map(shown);
        let template = tokenizer.chat_template().unwrap();
        let text = template.render(&[], &Variables::new(), false).unwrap();
        assert_eq!(text, format!("[{}]", names.join(", ")), "{}", case["files"]);
    }
}

#[test]
fn templates_are_found_where_transformers_finds_them() {
    let render = |tokenizer: &Tokenizer, variables: Value| {
        let template = tokenizer.chat_template().unwrap();
        template
            .render(&[], variables.as_object().unwrap(), false)
            .unwrap()
    };
    let config = json!({"chat_template": {"default": "d", "tool_use": "t"}});
    let dictionary = load(&[("tokenizer_config.json", config.clone())]).unwrap();
    assert_eq!(render(&dictionary, json!({"tools": []})), "t");
    assert_eq!(render(&dictionary, json!({})), "d");
    let files = folder(&[
        ("tokenizer_config.json", config),
        (
            "chat_template.jinja",
            json!("file\r\n{% if true %}\r\nx{% endif %}"),
        ),
    ]);
    let more = files.path().join("additional_chat_templates");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("tool_use.jinja"), "more").unwrap();
    fs::write(more.join("notes.txt"), "{% if %}").unwrap();
    let several = Tokenizer::from_dir(files.path()).unwrap();
    assert_eq!(render(&several, json!({"tools": []})), "more");
    assert_eq!(render(&several, json!({})), "file\nx");
}

/// Parts of `tokenizer.json` on which the crate `tokenizers` panics or asks for all memory.
#[test]
fn damaged_rules_are_errors_that_name_the_file() {
    let path = qoft_fixtures::path("tokenizer/tokenizer.json");
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let with = |name: &str, part: Value| {
        let mut file = file.clone();
        file[name] = part;
        file
    };
    let mut prefix = file.clone();
    prefix["model"]["continuing_subword_prefix"] = json!("####################");
    let template = |single: Value| {
        json!({
            "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {},
        })
    };
    let huge = "/////wAAAAAAAAAA";
    let cases = [
        prefix,
        with(
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "!!"}),
        ),
        with(
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": huge}),
        ),
        with(
            "normalizer",
            json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
        ),
        with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        with(
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        with(
            "post_processor",
            template(json!([{"SpecialToken": {"id": "nope", "type_id": 0}}])),
        ),
        with(
            "post_processor",
            template(json!([{"Sequence": {"id": "B", "type_id": 0}}])),
        ),
    ];
    for file in cases {
        let error = load(&[("tokenizer.json", file.clone())])
            .map(|_| ())
            .unwrap_err();
        assert!(
            error.to_string().contains("tokenizer.json is broken"),
            "{error}"
        );
    }
}

/// Changes of single values anywhere in `tokenizer.json`: an error or a tokenizer that answers.
#[test]
fn changed_values_in_the_rules_never_panic() {
    let path = qoft_fixtures::path("tokenizer/tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
        {"type": "Prepend", "prepend": "_"}, {"type": "NFKC"},
        {"type": "Strip", "strip_left": true, "strip_right": true},
    ]});
    file["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "Fuse"},
    ]});
    let parts = [
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "added_tokens",
    ];
    let mut pointers: Vec<String> = Vec::new();
    for part in parts {
        collect(&file[part], format!("/{part}"), &mut pointers);
    }
    for name in [
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "merges",
        "vocab",
        "type",
        "merges/0",
    ] {
        pointers.push(format!("/model/{name}"));
    }
    let values = [
        json!(null),
        json!(""),
        json!("x"),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1.5),
        json!([]),
        json!({}),
        json!(true),
        json!("\u{0}\u{FFFF}"),
        json!({"type": "BPE"}),
    ];
    let mut read = 0;
    for pointer in &pointers {
        for value in &values {
            let mut changed = file.clone();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            let Ok(tokenizer) = load(&[("tokenizer.json", changed)]) else {
                continue;
            };
            read += 1;
            for text in ["", "Hello there!", "ab <|im_end|> \u{0}é"] {
                if let Ok(ids) = tokenizer.encode(text, true) {
                    let _ = tokenizer.decode(&ids, true);
                    let _ = tokenizer.encode_with_offsets(text, false);
                }
            }
        }
    }
    assert!(read > 100, "{read} of {}", pointers.len() * values.len());
}

fn collect(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    pointers.push(pointer.clone());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{index}"), pointers);
            }
        }
        Value::Object(entries) => {
            for (name, entry) in entries {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(entry, format!("{pointer}/{name}"), pointers);
            }
        }
        _ => {}
    }
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
