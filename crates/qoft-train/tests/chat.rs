//! Chat templates against what transformers renders from them.

use std::fs;

use qoft_train::chat::{ChatError, ChatTemplate, Message, Variables};
use serde_json::{Value, json};

/// The folders below `chat/` in the fixtures.
const TEMPLATES: [&str; 9] = [
    "chatml_default_system",
    "chatml_generation",
    "chatml_generation_inline",
    "llama3",
    "llama3_tools_date",
    "mistral_inst",
    "qwen25",
    "qwen3_think",
    "zephyr_namespace",
];

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(qoft_fixtures::path(name)).unwrap()).unwrap()
}

fn messages(value: &Value) -> Vec<Message> {
    let messages = value.as_array().unwrap().iter();
    messages
        .map(|message| message.as_object().unwrap().clone())
        .collect()
}

fn variables(conversation: &Value) -> Variables {
    let mut variables = conversation["variables"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    if let Some(tools) = conversation.get("tools") {
        variables.insert("tools".to_owned(), tools.clone());
    }
    variables
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, &Variables::new()).unwrap()
}

/// The template in a folder, and the conversations with their expected texts.
fn fixture(name: &str) -> (ChatTemplate, Vec<Value>) {
    let expected = read_json(&format!("chat/{name}/expected.json"));
    let source = qoft_fixtures::path(&format!("chat/{name}/chat_template.jinja"));
    let mut special_tokens = Variables::new();
    for token in ["bos_token", "eos_token"] {
        if expected[token] != "" {
            special_tokens.insert(token.to_owned(), expected[token].clone());
        }
    }
    let template = ChatTemplate::new(&fs::read_to_string(source).unwrap(), &special_tokens);
    let conversations = expected["conversations"].as_array().unwrap().clone();
    assert!(!conversations.is_empty());
    (template.unwrap(), conversations)
}

/// The expected text, with the day on which the fixtures were told to be made replaced by today.
fn expected_text(conversation: &Value, field: &str) -> String {
    let text = conversation[field].as_str().unwrap();
    let Some(now) = conversation["now"].as_str() else {
        return text.to_owned();
    };
    let then = match &now[..10] {
        "2025-03-04" => "04 Mar 2025",
        "2025-12-31" => "31 Dec 2025",
        other => panic!("unknown day {other}"),
    };
    assert!(text.contains(then), "{text}");
    let today = template("{{ strftime_now('%d %b %Y') }}");
    text.replace(then, &today.render(&[], &Variables::new(), false).unwrap())
}

#[test]
fn templates_render_as_in_transformers() {
    for name in TEMPLATES {
        let (template, conversations) = fixture(name);
        for conversation in &conversations {
            let messages = messages(&conversation["messages"]);
            let variables = variables(conversation);
            if let Some(error) = conversation["error"].as_str() {
                let found = template.render(&messages, &variables, false).unwrap_err();
                assert!(found.to_string().contains(error), "{name}: {found}");
                continue;
            }
            for (field, add_generation_prompt) in [("text", false), ("prompt", true)] {
                let text = template
                    .render(&messages, &variables, add_generation_prompt)
                    .unwrap();
                assert_eq!(
                    text,
                    expected_text(conversation, field),
                    "{name}: {messages:?}"
                );
            }
        }
    }
}

#[test]
fn the_assistants_turns_are_learned_through_their_closing_mark() {
    for name in TEMPLATES {
        let (template, conversations) = fixture(name);
        for conversation in conversations
            .iter()
            .filter(|case| case.get("error").is_none())
        {
            let messages = messages(&conversation["messages"]);
            let rendered = template
                .render_assistant(&messages, &variables(conversation))
                .unwrap();
            assert_eq!(rendered.text, expected_text(conversation, "text"), "{name}");
            let learned: Vec<&str> = rendered
                .learned
                .iter()
                .map(|range| &rendered.text[range.clone()])
                .collect();
            let spans = conversation["assistant_spans"].as_array().unwrap();
            let expected: Vec<_> = spans
                .iter()
                .map(|span| span["text"].as_str().unwrap())
                .collect();
            assert_eq!(learned, expected, "{name}: {messages:?}");
            if conversation.get("now").is_none() {
                let starts = rendered
                    .learned
                    .iter()
                    .map(|range| json!([range.start, range.end]));
                let expected = spans.iter().map(|span| span["bytes"].clone());
                assert!(starts.eq(expected), "{name}: {:?}", rendered.learned);
            }
        }
    }
}

fn hi_ho() -> Vec<Message> {
    messages(&json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<b>ho</b>"},
        {"role": "user", "content": "hi again"},
        {"role": "assistant", "content": "<b>ho</b> again"},
    ]))
}

fn learned(source: &str, messages: &[Message]) -> Result<Vec<String>, ChatError> {
    let rendered = template(source).render_assistant(messages, &Variables::new())?;
    let ranges = rendered.learned.iter();
    Ok(ranges
        .map(|range| rendered.text[range.clone()].to_owned())
        .collect())
}

#[test]
fn a_generation_prompt_that_opens_a_thought_leaves_the_content_whole() {
    // `<` is common to the thought that the prompt opens and the content that the turn starts with.
    let source = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<assistant><think>' }}{% endif %}";
    assert_eq!(
        learned(source, &hi_ho()).unwrap(),
        ["<b>ho</b></s>", "<b>ho</b> again</s>"]
    );
}

#[test]
fn white_space_that_ends_a_turn_by_itself_is_learned() {
    let source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    assert_eq!(
        learned(source, &hi_ho()).unwrap(),
        ["<b>ho</b>\n", "<b>ho</b> again\n"]
    );
}

#[test]
fn a_template_that_hides_its_turns_is_an_error_that_names_the_message() {
    let source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let error = learned(source, &hi_ho()).unwrap_err();
    assert!(matches!(error, ChatError::Turn { number: 2 }), "{error}");
}

#[test]
fn all_that_follows_the_prompt_of_a_completion_is_learned() {
    let (template, _) = fixture("chatml_generation");
    let messages = hi_ho();
    let (prompt, completion) = messages.split_at(1);
    let rendered = template
        .render_completion(prompt, completion, &Variables::new())
        .unwrap();
    let whole = template
        .render(&messages, &Variables::new(), false)
        .unwrap();
    let prompt = template.render(prompt, &Variables::new(), true).unwrap();
    assert_eq!(rendered.text, whole);
    assert_eq!(rendered.learned, vec![prompt.len()..whole.len()]);
}

#[test]
fn marks_in_messages_are_refused_only_where_they_would_be_lost() {
    let text = "a\u{FDD0}b";
    let messages = messages(&json!([{"role": "user", "content": [{"text": text}]}]));
    let plain = "{{ messages[0].content[0].text }}";
    let tagged = format!("{{% generation %}}{plain}{{% endgeneration %}}");
    let render = |source| template(source).render(&messages, &Variables::new(), false);
    assert_eq!(render(plain).unwrap(), text);
    assert!(matches!(
        render(&tagged),
        Err(ChatError::ReservedCharacter(0xFDD0))
    ));
}

#[test]
fn python_idioms_of_templates_work() {
    let variables = json!({"text": "é<think>a b</think>\n\nc", "none": null, "list": [1, "x"]});
    let cases = [
        ("{{ text.split('</think>')[-1].lstrip('\\n') }}", "c"),
        ("{{ text[:text.find('<')] }}", "é"),
        ("{{ text[text.rfind('\\n') + 1:] }}", "c"),
        ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
        (
            "{{ text is sequence }} {{ none is iterable }} {{ list is sequence }}",
            "True False True",
        ),
        ("{{ list }}{{ list | string | length }}", "[1, 'x']8"),
        (
            "{{ {'b': 1, 'a': [none]} | tojson }}",
            r#"{"b": 1, "a": [null]}"#,
        ),
        (
            "{% for x in list %}{% if loop.last %}{% break %}{% endif %}{{ x }}{% endfor %}",
            "1",
        ),
        (
            "{{ tools is none }}{{ documents is defined }}{{ missing }}",
            "TrueTrue",
        ),
        (
            "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
            "a1",
        ),
        ("{{ missing.get('x') if missing else 'no' }}", "no"),
    ];
    for (source, expected) in cases {
        let text = template(source).render(&[], variables.as_object().unwrap(), false);
        assert_eq!(text.unwrap(), expected, "{source}");
    }
}

#[test]
fn broken_and_refusing_templates_are_errors() {
    let broken = ChatTemplate::new("{% if %}", &Variables::new());
    assert!(matches!(broken, Err(ChatError::Syntax(_))));
    let refusing = template("\n{{ raise_exception('only one message') }}");
    let error = refusing.render(&[], &Variables::new(), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template fails on this conversation: only one message (line 2 of the template)"
    );
}
