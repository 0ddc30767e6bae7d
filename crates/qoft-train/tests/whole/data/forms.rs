//! Forms of rows and kinds of files that mean the same.

use std::io::Write;

use qoft_train::data::{Columns, DataFormat, Overlong, TrainOn};

use super::*;

/// A tokenizer with a template that takes any conversation.
fn chat() -> (Tokenizer, TempDir) {
    let folder = TempDir::new().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = qoft_fixtures::path(&format!("tokenizer/{name}"));
        fs::copy(path, folder.path().join(name)).unwrap();
    }
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
                    {% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    (Tokenizer::from_dir(folder.path()).unwrap(), folder)
}

fn with(row: &Value, options: &DatasetOptions) -> Result<Dataset, DataError> {
    Dataset::load(
        &lines(std::slice::from_ref(row)).path,
        &chat().0,
        options,
        None,
    )
}

fn rows(row: Value) -> Vec<Example> {
    with(&row, &OPTIONS).unwrap().examples
}

#[test]
fn forms_of_other_programs_are_conversations() {
    let messages = |list: Value| rows(json!({"messages": list}));
    let plain = messages(json!([
        {"role": "user", "content": "Add.\n1 2"},
        {"role": "assistant", "content": "3"},
    ]));
    let alpaca = json!({"instruction": "Add.", "input": "1 2", "output": "3", "text": "x"});
    assert_eq!(rows(alpaca), plain);
    let shared = json!({"conversations": [
        {"from": "human", "value": "Add.\n1 2"}, {"from": "gpt", "value": "3"},
    ]});
    assert_eq!(rows(shared), plain);

    let long = messages(json!([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]));
    let alpaca = json!({
        "instruction": "c", "input": "", "output": "d", "system": "S", "history": [["a", "b"]],
    });
    assert_eq!(rows(alpaca), long);
    for [system, user, assistant] in [
        ["system", "user", "assistant"],
        ["system", "human", "model"],
    ] {
        let said = |from, value| json!({"from": from, "value": value});
        let shared = json!({"conversations": [
            said(system, "S"), said(user, "a"), said(assistant, "b"), said(user, "c"),
            said(assistant, "d"),
        ]});
        assert_eq!(rows(shared.clone()), long);
        let mut beside = shared;
        beside["system"] = "that of the conversation wins".into();
        assert_eq!(rows(beside.clone()), long);
        beside["conversations"].as_array_mut().unwrap().remove(0);
        beside["system"] = "S".into();
        assert_eq!(rows(beside), long);
    }

    let called = messages(json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        ]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "seven"},
    ]));
    let shared = json!({"tools": "[{\"name\": \"f\"}]", "conversations": [
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "seven"},
    ]});
    assert_eq!(rows(shared), called);
    let text = messages(json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        ], "content": ""},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "seven"},
    ]));
    assert_eq!(text, called, "arguments may be the text of an object");
}

#[test]
fn unknown_roles_and_calls_are_named() {
    for (from, value, expected) in [
        ("narrator", "x", "line 1: message 2 is from 'narrator'"),
        (
            "function_call",
            "f(x)",
            "message 2 is a function call, but not JSON",
        ),
    ] {
        let row = json!({"conversations": [
            {"from": "human", "value": "a"}, {"from": from, "value": value},
        ]});
        let error = with(&row, &OPTIONS).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn files_of_any_kind_hold_the_same_rows() {
    let row = |prompt: &str, completion: &str| json!({"prompt": prompt, "completion": completion});
    let expected = load(&lines(&[row("a", "b"), row("c, \"d\"", "e\nf")])).unwrap();
    let json = lines(&[row("a", "b"), row("c, \"d\"", "e\nf")]);
    let json = fs::read_to_string(&json.path).unwrap();
    let gzip = |content: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    };
    let zstd = |content: &[u8]| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(content, level)
    };
    let halves: Vec<u8> = json
        .lines()
        .flat_map(|line| zstd(format!("{line}\n").as_bytes()))
        .collect();
    let table = "prompt,completion\na,b\n\"c, \"\"d\"\"\",\"e\nf\"\n";
    let array = json.replace('\n', ",");
    for (name, content) in [
        ("a.csv", table.as_bytes().to_vec()),
        (
            "a.tsv",
            table
                .replacen("prompt,c", "prompt\tc", 1)
                .replace("a,b", "a\tb")
                .replace("\",\"", "\"\t\"")
                .into(),
        ),
        ("a.csv.gz", gzip(table.as_bytes())),
        ("a.jsonl.gz", gzip(json.as_bytes())),
        ("a.jsonl.zst", zstd(json.as_bytes())),
        ("a.jsonl.zst", halves),
        ("packed_by_somebody", gzip(json.as_bytes())),
        ("a.jsonl", format!("[{array}]").into()),
        ("a.json", format!("{{\"train\": [{array}]}}").into()),
        (
            "a.json",
            format!("{{\"version\": 1,\n\"data\": [{array}]}}").into(),
        ),
    ] {
        let found = load(&file(name, content)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.examples, expected.examples, "{name}");
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.csv"), "prompt,completion\na,b\n").unwrap();
    let second = json.lines().nth(1).unwrap();
    fs::write(folder.path().join("b.jsonl"), second).unwrap();
    let found = Dataset::load(folder.path(), &tokenizer(), &OPTIONS, None).unwrap();
    assert_eq!(found.examples, expected.examples);
    assert_eq!(found.report.files, ["a.csv", "b.jsonl"]);
}

#[test]
fn cells_of_tables_may_be_lists_and_numbers() {
    let list = "\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}, \
                {\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"b\"\"}]\"";
    let table = file(
        "a.csv",
        format!("messages,weight\n{list},1\n{list},0\n{list},\n"),
    );
    let found = Dataset::load(&table.path, &chat().0, &OPTIONS, None).unwrap();
    let row = json!({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    ]});
    assert_eq!(found.examples[0], rows(row)[0]);
    assert_eq!(found.report.unpredictable, [RowNumber::Line(3).into()]);
    let ids = load(&file("a.csv", "input_ids\n\"[1, 2]\"\n")).unwrap();
    assert_eq!(ids.examples[0].input_ids, [1, 2]);
}

#[test]
fn rows_of_a_folder_are_named_with_their_file() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.jsonl", "{\"text\": \"one\"}\n");
    write(
        "b.jsonl",
        "{\"input_ids\": [1, 2]}\n\n{\"input_ids\": [1]}\n",
    );
    let load = || Dataset::load(folder.path(), &tokenizer(), &OPTIONS, None);
    let named = &load().unwrap().report.unpredictable;
    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["b.jsonl line 3"]);
    write("b.jsonl", "{\"text\": \"one\"}\n[1]\n");
    let error = load().unwrap_err().to_string();
    assert!(error.contains("b.jsonl, line 2"), "{error}");
}

#[test]
fn formats_and_columns_are_chosen() {
    let mut options = OPTIONS;
    options.columns = "prompt=question,completion=answer"
        .parse::<Columns>()
        .unwrap();
    let row = json!({"question": "a", "answer": "b"});
    let found = with(&row, &options).unwrap();
    assert_eq!(
        found.examples,
        rows(json!({"prompt": "a", "completion": "b"}))
    );
    let taken: Vec<_> = found.report.formats.iter().collect();
    assert_eq!(taken, [(DataFormat::PromptCompletion, 1)]);
    let mut options = OPTIONS;
    options.format = DataFormat::Text;
    let row = json!({"text": "a", "messages": []});
    assert_eq!(
        with(&row, &options).unwrap().examples,
        rows(json!({"text": "a"}))
    );
    let error = with(&json!({"instruction": "a"}), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("text must be a text"), "{error}");
}

#[test]
fn what_is_learned_is_chosen() {
    let row = json!({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b"}, {"role": "assistant", "content": "two"},
    ]});
    let learned_on = |train_on| {
        let mut options = OPTIONS;
        options.train_on = train_on;
        learned(&with(&row, &options).unwrap().examples[0])
    };
    assert_eq!(learned_on(TrainOn::Assistant), "one<|im_end|>two<|im_end|>");
    assert_eq!(learned_on(TrainOn::Last), "two<|im_end|>");
    let all = learned_on(TrainOn::All);
    assert!(all.starts_with("<|im_start|>user\na<|im_end|>"), "{all}");
}

#[test]
fn long_rows_are_left_out_or_errors_and_rows_are_counted() {
    let row = |count: usize| json!({"input_ids": vec![5; count]});
    let rows = lines(&[row(3), row(9), row(4), row(5)]);
    let read = |overlong, most: Option<usize>| {
        let mut options = OPTIONS.with_max_length(Some(4));
        options.overlong = overlong;
        options.max_rows = most.and_then(std::num::NonZeroUsize::new);
        Dataset::load(&rows.path, &tokenizer(), &options, None)
    };
    let dropped = read(Overlong::Drop, None).unwrap();
    assert_eq!((dropped.report.rows, dropped.report.dropped_rows), (2, 2));
    assert_eq!(dropped.report.cut_rows, 0);
    let error = read(Overlong::Error, None).unwrap_err().to_string();
    assert!(
        error.contains("line 2: the row has 9 tokens, but 4 are the most"),
        "{error}"
    );
    assert_eq!(read(Overlong::Error, Some(1)).unwrap().report.rows, 1);
    assert_eq!(read(Overlong::Truncate, Some(3)).unwrap().report.tokens, 11);
    assert_eq!(read(Overlong::Drop, Some(2)).unwrap().report.rows, 2);
}
