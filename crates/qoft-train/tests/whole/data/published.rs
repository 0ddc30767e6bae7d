//! Conversations as ids and labels, with published templates and tokenizers of their classes, against
//! transformers and TRL.

use super::*;

struct Case {
    name: String,
    tokenizer: Tokenizer,
    marked: bool,
    rows: Vec<Value>,
    completions: Vec<Value>,
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(qoft_fixtures::path(name)).unwrap()).unwrap()
}

fn cases(today: &str) -> Vec<Case> {
    let all = read_json("chat_rows/expected.json");
    let case = |case: &Value| {
        let text = |name: &str| case[name].as_str().unwrap();
        let path = qoft_fixtures::path("chat_rows/tokenizers").join(text("tokenizer"));
        let template = fs::read_to_string(qoft_fixtures::path(text("template"))).unwrap();
        let list = |name: &str| case[name].as_array().unwrap().clone();
        Case {
            name: text("template").to_owned(),
            tokenizer: Tokenizer::from_dir(&path)
                .unwrap()
                .with_chat_template(without_clock(&template, today)),
            marked: case["marked"].as_bool().unwrap(),
            rows: list("rows"),
            completions: list("completions"),
        }
    };
    all.as_array().unwrap().iter().map(case).collect()
}

/// The template with a day in the place of each look at the clock.
fn without_clock(template: &str, today: &str) -> String {
    let mut parts = template.split("strftime_now(");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(')').unwrap();
        text.push_str(&format!("{today:?}{rest}"));
    }
    text
}

/// The row with the arguments of calls as texts.
fn with_text_arguments(row: &Value) -> Value {
    let mut row = row.clone();
    let messages = row["messages"].as_array_mut().unwrap().iter_mut();
    let calls = messages.filter_map(|message| message.get_mut("tool_calls")?.as_array_mut());
    for arguments in calls
        .flatten()
        .map(|call| &mut call["function"]["arguments"])
    {
        // As Python's json writes objects, whose texts templates show.
        let fields = arguments.as_object().unwrap().iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name:?}: {value}"))
            .collect();
        *arguments = format!("{{{}}}", fields.join(", ")).into();
    }
    row
}

fn encoded(row: &Value, case: &Case, train_on: TrainOn) -> Result<Example, DataError> {
    let mut options = DatasetOptions::new(1000);
    options.train_on = train_on;
    let rows = lines(std::slice::from_ref(row));
    let loaded = Dataset::load(&rows.path, &case.tokenizer, &options, None);
    loaded.map(|mut dataset| dataset.examples.remove(0))
}

/// The ranges of tokens that are learned, all of which have their ids as labels.
fn ranges(example: &Example) -> Vec<[usize; 2]> {
    let mut found: Vec<[usize; 2]> = Vec::new();
    for (index, (label, id)) in example
        .labels
        .iter()
        .zip(example.input_ids.iter())
        .enumerate()
    {
        if *label == IGNORED {
            continue;
        }
        assert_eq!(*label, *id as i32);
        match found.last_mut() {
            Some(last) if last[1] == index => last[1] += 1,
            _ => found.push([index, index + 1]),
        }
    }
    found
}

#[test]
fn ids_and_labels_are_those_of_transformers_and_trl() {
    let given = read_json("chat_rows/rows.json");
    let (mut wrong, mut compared, mut marked) = (Vec::new(), 0, 0);
    for case in cases(given["today"].as_str().unwrap()) {
        let rows = given["rows"].as_array().unwrap();
        for (index, (row, expected)) in rows.iter().zip(&case.rows).enumerate() {
            for row in [row.clone(), with_text_arguments(row)] {
                let place = format!("{} row {index}", case.name);
                let unclear = expected["learned"].is_null();
                let train_on = match unclear {
                    true => TrainOn::All,
                    false => TrainOn::Assistant,
                };
                match encoded(&row, &case, train_on) {
                    Ok(found) if json!(found.input_ids.to_vec()) != expected["ids"] => {
                        wrong.push(format!("{place}: {found:?} instead of {expected}"));
                    }
                    Ok(found) if !unclear && json!(ranges(&found)) != expected["learned"] => {
                        let (found, expected) = (ranges(&found), &expected["learned"]);
                        wrong.push(format!("{place}: learns {found:?} instead of {expected}"));
                    }
                    Err(error) if expected["error"].is_null() => {
                        wrong.push(format!("{place}: {error}"));
                    }
                    _ => {}
                }
                compared += 1;
                marked += usize::from(case.marked);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= 500 && marked >= 250, "{compared}, {marked}");
}

#[test]
fn completions_start_where_they_do_in_trl() {
    let given = read_json("chat_rows/rows.json");
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for case in cases(given["today"].as_str().unwrap()) {
        let rows = given["completions"].as_array().unwrap();
        for (index, (row, expected)) in rows.iter().zip(&case.completions).enumerate() {
            let place = format!("{} completion {index}", case.name);
            match encoded(row, &case, TrainOn::Assistant) {
                Ok(found) => {
                    let learned = ranges(&found);
                    let start = learned.first().map(|range| range[0]);
                    let whole = learned.len() == 1 && learned[0][1] == found.labels.len();
                    if json!(found.input_ids.to_vec()) != expected["ids"] || !whole {
                        wrong.push(format!("{place}: {found:?} instead of {expected}"));
                    } else if !expected["start"].is_null() && json!(start) != expected["start"] {
                        let expected = &expected["start"];
                        wrong.push(format!("{place}: starts at {start:?}, not {expected}"));
                    }
                }
                Err(error) if expected["error"].is_null() => {
                    wrong.push(format!("{place}: {error}"));
                }
                Err(_) => {}
            }
            compared += 1;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= 80, "{compared}");
}
