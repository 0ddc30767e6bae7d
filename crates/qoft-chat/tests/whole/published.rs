//! Published templates against what transformers renders from them.

use std::fs;

use qoft_chat::{ChatError, ChatTemplate, Message, Variables};
use serde_json::{Value, json};

const PACKAGES: [&str; 3] = ["axolotl", "trl", "unsloth"];

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(qoft_fixtures::path(name)).unwrap()).unwrap()
}

fn template(package: &str, name: &str) -> Option<(String, ChatTemplate)> {
    let path = qoft_fixtures::path("templates").join(package);
    let path = path.join(format!("{name}.jinja"));
    let tokens = json!({
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    });
    let source = fs::read_to_string(path).ok()?;
    let template = ChatTemplate::new(&source, tokens.as_object().unwrap());
    let template = template.unwrap_or_else(|error| panic!("{package}/{name}: {error}"));
    Some((source, template))
}

fn messages(conversation: &Value) -> Vec<Message> {
    let messages = conversation["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message.as_object().unwrap().clone())
        .collect()
}

fn variables(conversation: &Value) -> Variables {
    let mut variables = conversation["variables"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for name in ["tools", "documents"] {
        variables.insert(name.to_owned(), conversation[name].clone());
    }
    variables
}

/// The text with the day of the fixtures in the place of today.
fn on_the_day_of_the_fixtures(text: String) -> String {
    let clock = ChatTemplate::new(
        "{% for f in formats %}{{ strftime_now(f) }}|{% endfor %}",
        &Variables::new(),
    );
    let formats = json!({"formats": ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y"]});
    let today = clock
        .unwrap()
        .render(&[], formats.as_object().unwrap(), false);
    let then = ["04 Mar 2025", "2025-03-04", "March 04, 2025"];
    let today = today.unwrap();
    let days = today.split('|').zip(then);
    days.fold(text, |text, (today, then)| text.replace(today, then))
}

#[test]
fn templates_render_as_in_transformers() {
    let conversations = read_json("templates/conversations.json");
    let conversations = conversations.as_array().unwrap();
    let (mut templates, mut texts, mut wrong) = (0, 0, Vec::new());
    for package in PACKAGES {
        let expected = read_json(&format!("templates/{package}.json"));
        for (name, expected) in expected.as_object().unwrap() {
            templates += 1;
            let (source, template) = template(package, name).unwrap();
            let cases = conversations.iter().zip(expected.as_array().unwrap());
            for (index, (conversation, expected)) in cases.enumerate() {
                let (messages, variables) = (messages(conversation), variables(conversation));
                let render = |prompt: bool| {
                    let text = template.render(&messages, &variables, prompt);
                    text.map(on_the_day_of_the_fixtures)
                };
                let found = render(false).and_then(|text| Ok((text, render(true)?)));
                let place = format!("{package}/{name} {index}");
                match (found, expected["text"].as_str()) {
                    (Ok((text, prompt)), Some(expected_text)) => {
                        let kept = expected["keep"].as_u64().unwrap() as usize;
                        let expected_prompt: String = expected_text
                            .chars()
                            .take(kept)
                            .chain(expected["prompt"].as_str().unwrap().chars())
                            .collect();
                        if text != expected_text || prompt != expected_prompt {
                            wrong.push(format!("{place}:\n{text}\n--- is not\n{expected_text}\n"));
                        }
                        texts += 2;
                    }
                    (Ok((text, _)), None) => wrong.push(format!("{place}: renders {text}")),
                    (Err(error), Some(_)) => wrong.push(format!("{place}: {error}")),
                    (Err(error), None) => {
                        let expected = expected["error"].as_str().unwrap();
                        let ChatError::Render(found) = &error else {
                            panic!("{place}: {error}");
                        };
                        if source.contains(expected) && found.message() != expected {
                            wrong.push(format!("{place}: {error} is not {expected}"));
                        }
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        templates >= 60 && texts > 1_000,
        "{templates} templates, {texts} texts"
    );
}

/// trl has many templates twice: once as published, and once with `{% generation %}` tags around
/// what the assistant says.
#[test]
fn the_turns_of_published_templates_are_found() {
    let conversations = read_json("templates/conversations.json");
    let conversations = conversations.as_array().unwrap();
    let (mut found, mut unclear, mut compared, mut differing) = (0, Vec::new(), 0, Vec::new());
    for package in PACKAGES {
        let expected = read_json(&format!("templates/{package}.json"));
        for (name, results) in expected.as_object().unwrap() {
            let (_, plain) = template(package, name).unwrap();
            let training = template(package, &format!("{name}_training"));
            for (index, conversation) in conversations.iter().enumerate() {
                if results[index].get("text").is_none() {
                    continue;
                }
                let (messages, variables) = (messages(conversation), variables(conversation));
                let turns = |template: &ChatTemplate| {
                    template.render_assistant(&messages, &variables, &|_| true, &str::len)
                };
                let rendered = match turns(&plain) {
                    Ok(rendered) => rendered,
                    Err(error) => {
                        unclear.push(format!("{package}/{name} {index}: {error}"));
                        continue;
                    }
                };
                found += 1;
                let Some(Ok(marked)) = training.as_ref().map(|(_, template)| turns(template))
                else {
                    continue;
                };
                if marked.text != rendered.text {
                    continue;
                }
                compared += 1;
                // What both agree on: no byte is learned that trl does not learn.
                let is_marked = |at: usize| marked.learned.iter().any(|range| range.contains(&at));
                let extra = rendered.learned.iter().cloned().flatten();
                let extra: Vec<u8> = extra
                    .filter(|&at| !is_marked(at))
                    .map(|at| rendered.text.as_bytes()[at])
                    .collect();
                let extra = String::from_utf8_lossy(&extra).trim().to_owned();
                if !extra.is_empty() {
                    differing.push(format!("{name} {index}: {extra}"));
                }
            }
        }
    }
    // What is not found is an error, not a guess.
    assert!(
        unclear.len() * 100 < found,
        "{found} found, not:\n{}",
        unclear.join("\n")
    );
    assert!(
        compared > 250 && differing.len() * 100 < compared,
        "{compared} compared, more learned in:\n{}",
        differing.join("\n")
    );
}
