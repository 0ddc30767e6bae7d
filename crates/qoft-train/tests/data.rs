//! Data files as examples: what is read, what is learned and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use qoft_train::data::{DataError, Dataset, DatasetOptions, Example, IGNORED, RowError, RowNumber};
use qoft_train::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The ids of the fixture's tokenizer that open and close a text.
const BOS: u32 = 1;
const EOS: u32 = 4;

const OPTIONS: DatasetOptions = DatasetOptions::new(320);

fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(&qoft_fixtures::path("tokenizer")).unwrap()
}

/// A data file in a folder that goes away with it.
struct DataFile {
    path: PathBuf,
    _folder: TempDir,
}

fn file(name: &str, content: impl AsRef<[u8]>) -> DataFile {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    DataFile {
        path,
        _folder: folder,
    }
}

fn lines(rows: &[Value]) -> DataFile {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    file("rows.jsonl", lines.join("\n"))
}

fn load(file: &DataFile) -> Result<Dataset, DataError> {
    Dataset::load(&file.path, &tokenizer(), &OPTIONS, None)
}

/// The example of the only row in a file.
fn example(row: Value) -> Example {
    load(&lines(&[row])).unwrap().examples.remove(0)
}

/// The text of the ids that are learned.
fn learned(example: &Example) -> String {
    let labels = example.labels.iter().filter(|&&label| label != IGNORED);
    let ids: Vec<u32> = labels.map(|&label| label as u32).collect();
    tokenizer().decode(&ids, false).unwrap()
}

#[test]
fn texts_open_and_close_and_are_learned_whole() {
    let Example {
        input_ids, labels, ..
    } = example(json!({"text": "Hello there!"}));
    assert_eq!(input_ids, [BOS, 317, 267, 278, 5, EOS]);
    assert_eq!(labels, [1, 317, 267, 278, 5, 4]);
}

#[test]
fn a_text_that_is_closed_already_is_not_closed_twice() {
    let closed = example(json!({"text": "Hello there!<|im_end|>"}));
    assert_eq!(closed, example(json!({"text": "Hello there!"})));
    let row = json!({"prompt": "Hello", "completion": " there!<|im_end|>"});
    assert_eq!(learned(&example(row)), " there!<|im_end|>");
}

#[test]
fn the_three_kinds_of_files_hold_the_same_texts() {
    let texts = ["one\nmore line", "two", "three"];
    let rows: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    let pretty = serde_json::to_string_pretty(&rows).unwrap();
    let by_line = rows
        .iter()
        .map(|row| format!("{row}\r\n\n"))
        .collect::<String>();
    let expected = load(&lines(&rows)).unwrap();
    assert_eq!(expected.report.rows, 3);
    for file in [
        file("rows.json", &pretty),
        file("rows.json", &by_line),
        file("rows.jsonl", format!("\u{FEFF}{by_line}")),
        file(
            "rows.txt",
            "\u{FEFF}one\r\nmore line\n\n \t\n\ntwo\n\nthree",
        ),
    ] {
        assert_eq!(load(&file).unwrap(), expected, "{}", file.path.display());
    }
}

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
    assert_eq!(json!(example.input_ids), expected["chat"]["ids"]);
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

#[test]
fn ids_are_used_as_they_are() {
    let plain = example(json!({"input_ids": [7, 8, 9]}));
    assert_eq!(plain.input_ids, [7, 8, 9]);
    assert_eq!(plain.labels, [7, 8, 9]);
    let labelled = example(json!({
        "input_ids": [7, 8, 9, 0, 0],
        "labels": [-100, 319, 9, 0, -100],
        "attention_mask": [1, 1, 1, 0, 0],
    }));
    assert_eq!(labelled.input_ids, [7, 8, 9]);
    assert_eq!(labelled.labels, [-100, 319, 9]);
}

#[test]
fn ids_need_no_tokenizer_but_text_does() {
    let folder = TempDir::new().unwrap();
    let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
    let load = |row| Dataset::load(&lines(&[row]).path, &tokenizer, &OPTIONS, None);
    assert!(load(json!({"input_ids": [1, 2]})).is_ok());
    let error = load(json!({"text": "x"})).unwrap_err();
    let reason = error.to_string();
    assert!(
        reason.contains("rows.jsonl, line 1: text needs a tokenizer"),
        "{reason}"
    );
    assert!(
        reason.contains(&folder.path().display().to_string()),
        "{reason}"
    );
    let error = load(json!({"messages": []})).unwrap_err();
    assert!(matches!(
        error,
        DataError::Row {
            reason: RowError::Tokenizer(TokenizerError::NoChatTemplate { .. }),
            ..
        }
    ));
}

#[test]
fn rows_that_cannot_be_used_are_named_with_their_line() {
    let cases = [
        (
            "{\"input_ids\": [1, 2",
            "line 3: not valid JSON: EOF while parsing a list (column",
        ),
        ("[1]", "a row must be a JSON object"),
        ("{\"content\": \"x\"}", "this one has content"),
        ("{\"input_ids\": []}", "the row has no tokens"),
        (
            "{\"input_ids\": [1], \"attention_mask\": [0]}",
            "the row has no tokens",
        ),
        (
            "{\"input_ids\": [1, -1]}",
            "the token id -1 at position 1 is outside 0..320",
        ),
        ("{\"input_ids\": [320]}", "the token id 320 at position 0"),
        (
            "{\"input_ids\": [1], \"labels\": [-99]}",
            "the label -99 at position 0 is neither",
        ),
        ("{\"input_ids\": [1], \"labels\": [320]}", "the label 320"),
        (
            "{\"input_ids\": [1], \"labels\": []}",
            "labels has 0 entries, but input_ids has 1",
        ),
        (
            "{\"input_ids\": [1, 2], \"attention_mask\": [1]}",
            "attention_mask has 1 entries, but input_ids has 2",
        ),
        (
            "{\"input_ids\": [1, 2], \"attention_mask\": [0, 1]}",
            "attention_mask is 0 at position 0, before tokens where it is 1",
        ),
        (
            "{\"input_ids\": [1], \"attention_mask\": [2]}",
            "attention_mask must be a list of 0 and 1",
        ),
    ];
    for (row, expected) in cases {
        let file = file("rows.jsonl", format!("{{\"text\": \"fine\"}}\n\n{row}\n"));
        let error = load(&file).unwrap_err();
        let DataError::Row { place, .. } = &error else {
            panic!("{row}: {error}");
        };
        assert_eq!(*place, RowNumber::Line(3));
        let message = error.to_string();
        let start = format!("{}, line 3: ", file.path.display());
        assert!(
            message.starts_with(&start) && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn rows_of_arrays_are_named_by_element_and_syntax_errors_by_line() {
    let file_error = |content| load(&file("rows.json", content)).unwrap_err().to_string();
    let wrong = file_error("[{\"text\": \"a\"},\n{\"text\": 1}]");
    assert!(
        wrong.ends_with("rows.json, element 2: text must be a text"),
        "{wrong}"
    );
    let broken = file_error("[{\"text\": \"a\"},\n{\"text\" 1}]");
    assert!(
        broken.contains("rows.json, line 2: not valid JSON"),
        "{broken}"
    );
}

#[test]
fn tokens_beyond_the_models_vocabulary_are_refused() {
    let options = DatasetOptions::new(300);
    let rows = lines(&[json!({"text": "Hello"})]);
    let error = Dataset::load(&rows.path, &tokenizer(), &options, None).unwrap_err();
    assert!(
        error.to_string().contains("the token id 317 at position 1"),
        "{error}"
    );
}

#[test]
fn files_without_rows_or_with_unknown_names_are_refused() {
    for (name, content) in [
        ("a.jsonl", "\n \n"),
        ("a.json", " [ ] "),
        ("a.json", ""),
        ("a.txt", "\n"),
    ] {
        assert!(
            matches!(load(&file(name, content)), Err(DataError::Empty { .. })),
            "{name}"
        );
    }
    for name in ["rows.csv", "rows"] {
        assert!(matches!(
            load(&file(name, "x")),
            Err(DataError::UnknownKind { .. })
        ));
    }
    let missing = Dataset::load(Path::new("no/such.jsonl"), &tokenizer(), &OPTIONS, None);
    assert!(matches!(missing, Err(DataError::Unusable { .. })));
    for (name, content) in [
        ("a.txt", &b"\xFF"[..]),
        ("a.jsonl", b"{\"text\": \"\xFF\"}"),
    ] {
        assert!(matches!(
            load(&file(name, content)),
            Err(DataError::Row { .. })
        ));
    }
}

#[test]
fn long_rows_lose_their_end_and_are_counted() {
    let rows = lines(&[
        json!({"input_ids": [1, 2, 3, 4, 5]}),
        json!({"input_ids": [1, 2]}),
        json!({"input_ids": [1, 2, 3, 4], "labels": [-100, -100, -100, 4]}),
    ]);
    let options = DatasetOptions::new(320).with_max_length(Some(3));
    let mut seen = Vec::new();
    let mut progress = |rows| seen.push(rows);
    let dataset = Dataset::load(&rows.path, &tokenizer(), &options, Some(&mut progress)).unwrap();
    assert_eq!(seen, [1, 2, 3]);
    assert_eq!(dataset.examples[0].input_ids, [1, 2, 3]);
    assert_eq!(dataset.examples[2].labels, [IGNORED; 3]);
    let report = dataset.report;
    assert_eq!((report.rows, report.tokens, report.predicted), (3, 8, 3));
    assert_eq!(
        (report.cut_rows, report.cut_tokens, report.longest),
        (2, 3, 3)
    );
    assert_eq!(report.unpredictable_rows, 1);
}

#[test]
fn a_file_with_nothing_to_predict_is_refused() {
    let rows = lines(&[
        json!({"input_ids": [1]}),
        json!({"input_ids": [1, 2], "labels": [1, -100]}),
        json!({"messages": [{"role": "user", "content": "hi"}]}),
    ]);
    let error = load(&rows).unwrap_err();
    assert!(
        matches!(error, DataError::NothingToPredict { rows: 3, .. }),
        "{error}"
    );
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

#[test]
fn paths_that_lead_to_no_rows_say_what_they_lead_to() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("train.jsonl"), "{}").unwrap();
    let utf16: Vec<u8> = "\u{FEFF}{\"text\": \"a\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files = [
        (file("a.jsonl", &utf16), "is text in UTF-16"),
        (file("a.jsonl", &utf16[2..]), "is text in UTF-16"),
        (file("a.parquet", "PAR1abc"), "is a Parquet table"),
        (file("a.jsonl.gz", b"\x1F\x8B\x08"), "is compressed by gzip"),
        (file("a.csv", "text\na"), "data files end in .jsonl"),
        (
            file("a.jsonl", b"{\"text\": \"caf\xE9\"}"),
            "line 1: the text is not UTF-8",
        ),
        (
            file("a.txt", b"a\n\ncaf\xE9"),
            "line 3: the text is not UTF-8",
        ),
        (
            file("a.jsonl", "{\n \"text\": \"a\"\n}"),
            "each line must hold one whole row",
        ),
        (
            file("a.jsonl", "{\"text\": null, \"id\": 1}"),
            "has id (text is null)",
        ),
    ];
    for (file, expected) in &files {
        let error = load(file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let paths = [
        (
            folder.path().to_owned(),
            "is a folder; give one of the files in it, such as train.jsonl",
        ),
        (
            folder.path().join("none.jsonl"),
            "none.jsonl does not exist",
        ),
        (
            PathBuf::from("someone/some-data"),
            "hf download --repo-type dataset someone/some-data",
        ),
    ];
    for (path, expected) in paths {
        let error = Dataset::load(&path, &tokenizer(), &OPTIONS, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn json_of_python_and_endings_in_capitals_are_read() {
    let expected = load(&lines(&[json!({"text": "one"}), json!({"text": "two"})])).unwrap();
    for file in [
        file(
            "A.JSONL",
            "{\"text\": \"one\", \"x\": NaN}\n{\"text\": \"two\", \"y\": [-Infinity]}\n",
        ),
        file(
            "a.json",
            "{\n\"text\": \"one\"\n}\n{\n\"text\":\n\"two\"\n}",
        ),
        file(
            "a.json",
            "[{\"text\": \"one\", \"x\": NaN}, {\"text\": \"two\"}]",
        ),
    ] {
        assert_eq!(load(&file).unwrap(), expected, "{}", file.path.display());
    }
}

#[test]
fn the_start_of_a_very_long_row_is_read_as_if_it_were_all() {
    let words = [
        "Hello there! ",
        "naïve café 你好 🙂 ",
        "x",
        "\n\n  1+1=2 ",
        "<|im_end|>",
    ];
    for seed in 0..2_usize {
        let mut text = String::new();
        let mut state = seed;
        while text.len() < 700_000 {
            state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
            text.push_str(words[(state >> 16) % words.len()]);
        }
        for row in [
            json!({"text": text}),
            json!({"prompt": text[..13], "completion": text[13..]}),
        ] {
            let file = lines(&[row]);
            let read = |max_length: Option<usize>| {
                let options = OPTIONS.with_max_length(max_length);
                Dataset::load(&file.path, &tokenizer(), &options, None).unwrap()
            };
            let whole = &read(None).examples[0];
            for max_length in [16, 1_024, 5_000] {
                let dataset = read(Some(max_length));
                let start = &dataset.examples[0];
                assert_eq!(start.input_ids, whole.input_ids[..max_length]);
                assert_eq!(start.labels, whole.labels[..max_length]);
                assert!(dataset.report.unread_bytes > 0 && dataset.report.cut_tokens > 0);
            }
        }
    }
}
