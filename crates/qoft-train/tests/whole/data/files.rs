//! Kinds of files, texts and ids, and rows that are too long.

use qoft_train::data::{Overlong, ValSize};

use super::*;

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
            reason: RowError::Tokenizer(TokenizerError::NoVocabulary { .. }),
            ..
        }
    ));
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
fn rows_are_named_by_their_places_in_files() {
    let folder = TempDir::new().unwrap();
    let row = |text: &str| json!({"text": text}).to_string();
    let (short, long) = (row("a b"), row(&"a b ".repeat(40)));
    fs::write(
        folder.path().join("a.jsonl"),
        format!("{short}\n\n{long}\n{short}"),
    )
    .unwrap();
    fs::write(folder.path().join("b.json"), format!("[{long}, {short}]")).unwrap();
    let mut options = OPTIONS;
    options.max_length = Some(16);
    options.overlong = Overlong::Drop;
    let cache = TempDir::new().unwrap();
    let cached = || {
        let path = folder.path();
        let mut warned = |warning: &str| panic!("{warning}");
        Dataset::load_cached(
            path,
            &tokenizer(),
            &options,
            cache.path(),
            None,
            &mut warned,
        )
        .unwrap()
    };
    let in_memory = Dataset::load(folder.path(), &tokenizer(), &options, None).unwrap();
    let path = |name| folder.path().join(name).display().to_string();
    let names = [
        format!("{} line 1", path("a.jsonl")),
        "line 4".to_owned(),
        format!("{} element 2", path("b.json")),
    ];
    for rows in [in_memory, cached(), cached()] {
        assert_eq!(rows.row_names(&[0, 1, 2]), names);
        let (kept, aside) = rows.split(ValSize::Rows(1), 3).unwrap();
        let parts = [
            kept.row_names(&[0]),
            kept.row_names(&[1]),
            aside.row_names(&[0]),
        ];
        let mut parts = parts.concat();
        parts.sort();
        let second = format!("{} line 4", path("a.jsonl"));
        assert_eq!(parts, [&names[0], &second, &names[2]].map(String::clone));
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
                assert_eq!(start.input_ids[..], whole.input_ids[..max_length]);
                assert_eq!(start.labels[..], whole.labels[..max_length]);
                assert!(dataset.report.unread_bytes > 0 && dataset.report.cut_tokens > 0);
            }
        }
    }
}
