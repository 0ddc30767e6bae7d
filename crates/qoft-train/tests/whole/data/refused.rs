//! Files and rows that cannot be used, and what is said of them.

use super::*;

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
    for name in ["rows.md", "rows"] {
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

#[test]
fn paths_that_lead_to_no_rows_say_what_they_lead_to() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("README.md"), "{}").unwrap();
    let utf16: Vec<u8> = "\u{FEFF}{\"text\": \"a\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files = [
        (file("a.jsonl", &utf16), "is text in UTF-16"),
        (file("a.jsonl", &utf16[2..]), "is text in UTF-16"),
        (file("a.parquet", "PAR1abc"), "Parquet file"),
        (file("a.jsonl.gz", b"\x1F\x8B\x08"), "cannot read"),
        (file("a.jsonl.zst", b"\x28\xB5\x2F\xFD"), "cannot read"),
        (file("a.xlsx", "text\na"), "data files end in .jsonl"),
        (
            file("a.csv", "prompt,completion\na,b\n\"c\"\n"),
            "line 3: there are 1 cells, but 2 names",
        ),
        (
            file("a.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}"),
            "here perhaps prompt=question,completion=answer",
        ),
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
        (folder.path().to_owned(), "is a folder, and no data file"),
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
fn masks_of_turns_are_not_dropped_where_all_is_learned() {
    let mut options = OPTIONS;
    options.train_on = TrainOn::All;
    let turns = |weight: u8| {
        json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": weight},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]})
    };
    let load = |row| Dataset::load(&lines(&[row]).path, &tokenizer(), &options, None);
    assert!(load(turns(1)).is_ok());
    let error = load(turns(0)).unwrap_err().to_string();
    assert!(error.contains("--train-on all"), "{error}");
}

#[test]
fn what_could_be_meant_in_two_ways_is_refused() {
    let turn = json!({"messages": [
        {"role": "user", "content": "a", "train": true},
        {"role": "assistant", "content": "b"},
    ]});
    let turn = lines(&[turn]);
    for (file, says) in [
        (
            file("a.csv", "text,id,text\na,1,b\n"),
            "line 1: two columns are called `text`",
        ),
        (
            file(
                "a.json",
                r#"{"data": [{"text": "a"}], "train": [{"text": "b"}]}"#,
            ),
            "rows under `train` and under `data`",
        ),
    ] {
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // Columns without a name hold the numbers of rows.
    load(&file("a.csv", "text,,\na,1,2\n")).unwrap();

    let error = load(&turn).unwrap_err().to_string();
    assert!(
        error.contains("message 1 says that it is learned"),
        "{error}"
    );
    let mut all = OPTIONS;
    all.train_on = TrainOn::All;
    Dataset::load(&turn.path, &tokenizer(), &all, None).unwrap();
}

#[test]
fn a_quote_that_is_never_closed_ends_no_table() {
    let table = "instruction\toutput\nsay\t\"unbalanced\nfoo\tbar\n";
    let error = load(&file("a.tsv", table)).unwrap_err().to_string();
    assert!(error.contains("line 2: a quote opens a cell"), "{error}");
    for good in [
        "text\n\"two\nlines\"\n",
        "text\n\"two\nlines\"",
        "text\na 5\" disk\n\"two\nlines\"\n",
        "text\n\"two\nlines\"\na 5\" disk\n",
    ] {
        load(&file("a.csv", good)).unwrap();
    }
}

#[test]
fn lines_of_tables_are_counted_whatever_ends_them() {
    for end in ["\n", "\r\n"] {
        for bad in 2..5 {
            let lines = ["prompt,completion,weight".to_owned()].into_iter();
            let rows = (2..5).map(|line| match line == bad {
                true => "a,b,heavy".to_owned(),
                false => "a,b,1".to_owned(),
            });
            let text = lines.chain(rows).collect::<Vec<_>>().join(end);
            let error = load(&file("a.csv", text)).unwrap_err().to_string();
            assert!(error.contains(&format!("line {bad}:")), "{end:?} {error}");
        }
    }
}

#[test]
fn files_that_unpack_to_no_end_are_refused() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..96 {
        packed.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 17);
    for name in ["a.jsonl.gz", "a.txt.gz", "a.csv.gz"] {
        let error = load(&file(name, &packed)).unwrap_err().to_string();
        assert!(error.contains("200 times its size"), "{name}: {error}");
    }
}
