//! Chat templates against what transformers renders from them.

use std::fs;

use qoft_chat::{ChatError, ChatTemplate, Message, Variables};
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
                .render_assistant(&messages, &variables(conversation), &|_| true, &str::len)
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
    let rendered =
        template(source).render_assistant(messages, &Variables::new(), &|_| true, &str::len)?;
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
fn any_character_may_stand_in_messages() {
    let text = "a\u{FDD0}b\u{FDD1}\u{F0000}";
    let messages = messages(&json!([{"role": "assistant", "content": text}]));
    let tagged = "<{% generation %}{{ messages[0].content }}{% endgeneration %}>";
    let rendered =
        template(tagged).render_assistant(&messages, &Variables::new(), &|_| true, &str::len);
    let rendered = rendered.unwrap();
    assert_eq!(rendered.text, format!("<{text}>"));
    assert_eq!(rendered.learned.len(), 1);
    assert_eq!(rendered.learned[0], 1..1 + text.len());
    let plain = "{{ messages[0].content }}";
    assert_eq!(learned(plain, &messages).unwrap(), [text]);
}

#[test]
fn a_template_that_changes_what_it_marks_is_refused() {
    let source = "{% set x %}{% generation %}abc{% endgeneration %}{% endset %}{{ x[:2] }}";
    let error = learned(source, &hi_ho()).unwrap_err();
    assert!(matches!(error, ChatError::Marks), "{error}");
    let source = "{% macro m() %}{% generation %}abc{% endgeneration %}{% endmacro %}{{ m() }}";
    assert_eq!(learned(source, &hi_ho()).unwrap(), ["abc"]);
}

#[test]
fn messages_that_are_not_to_be_learned_are_left_out() {
    let chatml = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}\
                  {% if add_generation_prompt %}<|assistant|>{% endif %}";
    let tagged = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}\
                  {% generation %}{{ m.content }}</s>{% endgeneration %}\
                  {% else %}{{ m.content }}</s>{% endif %}{% endfor %}";
    for source in [chatml, tagged] {
        let learns = |index: usize| index == 3;
        let rendered =
            template(source).render_assistant(&hi_ho(), &Variables::new(), &learns, &str::len);
        let rendered = rendered.unwrap();
        let texts: Vec<&str> = rendered
            .learned
            .iter()
            .map(|range| &rendered.text[range.clone()])
            .collect();
        assert_eq!(texts, ["<b>ho</b> again</s>"]);
    }
    // One mark around two messages cannot be divided.
    let source =
        "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}";
    let rendered =
        template(source).render_assistant(&hi_ho(), &Variables::new(), &|i| i == 3, &str::len);
    let error = rendered.unwrap_err();
    assert!(
        matches!(
            error,
            ChatError::MarkedTurns {
                marked: 1,
                messages: 2
            }
        ),
        "{error}"
    );
}

/// The end of the whole text follows the last turn only.
#[test]
fn the_end_of_text_behind_the_last_turn_belongs_to_it() {
    for end in ["<|endoftext|>", "</s>", "[END]", "\n\n"] {
        let source = format!(
            "{{% for m in messages %}}{{{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}}}{{% endfor %}}\
             {{% if add_generation_prompt %}}{{{{ '<|assistant|>\n' }}}}{{% else %}}{end}{{% endif %}}"
        );
        let found = learned(&source, &hi_ho()).unwrap();
        assert_eq!(found[0], "<b>ho</b><|end|>", "{end}");
        assert_eq!(
            found[1],
            format!("<b>ho</b> again<|end|>\n{end}").trim_end(),
            "{end}"
        );
    }
}

#[test]
fn an_assistant_may_open_a_conversation() {
    let opening = messages(&json!([
        {"role": "assistant", "content": "How can I help?"},
        {"role": "user", "content": "Sing"},
        {"role": "assistant", "content": "La"},
    ]));
    // As many templates, this one looks at the first message, whether there is one or not.
    let source = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}\
                  {% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}\
                  {% if add_generation_prompt %}<|assistant|>{% endif %}";
    assert_eq!(
        learned(source, &opening).unwrap(),
        ["How can I help?</s>", "La</s>"]
    );
}

#[test]
fn named_templates_are_chosen_by_tools_and_by_name() {
    let templates = ["default", "tool_use", "rag", "broken"].map(|name| {
        let source = if name == "broken" { "{% if %}" } else { name };
        (name.to_owned(), source.to_owned())
    });
    let template = ChatTemplate::named(templates, &Variables::new());
    let render = |variables: Value| template.render(&hi_ho(), variables.as_object().unwrap(), true);
    assert_eq!(render(json!({})).unwrap(), "default");
    assert_eq!(render(json!({"tools": null})).unwrap(), "default");
    assert_eq!(render(json!({"tools": []})).unwrap(), "tool_use");
    assert_eq!(
        render(json!({"tools": [], "chat_template": "rag"})).unwrap(),
        "rag"
    );
    let error = render(json!({"chat_template": "x"}))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("'x'") && error.contains("default, tool_use, rag"),
        "{error}"
    );
    let error = render(json!({"chat_template": "broken"}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("'broken' does not parse"), "{error}");
    let only = [("tool_use".to_owned(), "tools".to_owned())];
    let only = ChatTemplate::named(only, &Variables::new());
    let error = only.render(&hi_ho(), &Variables::new(), false).unwrap_err();
    assert!(matches!(error, ChatError::NoSuchTemplate { .. }), "{error}");
}

#[test]
fn messages_reach_templates_without_nulls_and_with_reasoning_under_all_its_names() {
    let template = template("{{ messages | tojson }}");
    let cases = [
        (
            json!({"role": "user", "content": null}),
            json!({"role": "user"}),
        ),
        (
            json!({"role": "a", "reasoning": "r", "content": ""}),
            json!({"thinking": "r", "role": "a", "reasoning": "r", "content": "", "reasoning_content": "r"}),
        ),
        (
            json!({"role": "a", "thinking": "t", "reasoning": "r"}),
            json!({"thinking": "t", "role": "a", "reasoning": "r", "reasoning_content": "t"}),
        ),
        (
            json!({"role": "a", "reasoning_content": "c", "thinking": null}),
            json!({"thinking": "c", "role": "a", "reasoning_content": "c"}),
        ),
    ];
    for (message, expected) in cases {
        let text = template.render(&messages(&json!([message])), &Variables::new(), false);
        let found: Value = serde_json::from_str(&text.unwrap()).unwrap();
        assert_eq!(found.to_string(), json!([expected]).to_string());
    }
}

#[test]
fn broken_and_refusing_templates_are_errors() {
    let broken = ChatTemplate::new("{% if %}", &Variables::new());
    assert!(matches!(broken, Err(ChatError::Syntax { .. })));
    let refusing = template("\n{{ raise_exception('only one message') }}");
    let error = refusing.render(&[], &Variables::new(), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template fails on this conversation: only one message (line 2 of the template)"
    );
}

/// A conversation of `count` messages, with a template that writes the last turn in another way.
fn rendered_start(count: usize, reach: usize) -> qoft_chat::Rendered {
    let list = (0..count).map(|index| {
        let role = ["user", "assistant"][index % 2];
        json!({"role": role, "content": format!("{index}")})
    });
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\
                  {{ '</s>' if not loop.last or m.role == 'user' else '<end>' }}\n{% endfor %}\
                  {% if add_generation_prompt %}<assistant>{% endif %}";
    let messages = messages(&list.collect::<Value>());
    let all = |_| true;
    let reached = |text: &str| reach.min(text.len());
    let rendered = template(source).render_assistant(&messages, &Variables::new(), &all, &reached);
    rendered.unwrap()
}

#[test]
fn turns_behind_what_is_kept_of_a_text_are_no_work() {
    let whole = rendered_start(40, usize::MAX);
    assert_eq!(whole.learned.len(), 20);
    let start = rendered_start(40, whole.learned[7].start + 1);
    assert_eq!(start.text, whole.text);
    assert_eq!(start.learned, whole.learned[..8]);
    // In the square of the messages this would be minutes.
    let time = std::time::Instant::now();
    assert!(rendered_start(20_000, 1_000).learned.len() > 10);
    assert!(time.elapsed() < std::time::Duration::from_secs(30));
}

#[test]
fn contents_that_are_shown_twice_or_measured_leave_turns_where_they_are() {
    let sources = [
        "{% for m in messages %}{{ m.role }}:{{ m.content }}/{{ m.content }};{% endfor %}\
         {{ 'assistant:' if add_generation_prompt }}",
        "{% for m in messages %}{{ m.role }}:{{ m.content }} {{ m.content | length }};{% endfor %}\
         {{ 'assistant:' if add_generation_prompt }}",
    ];
    let expected = [
        ["<b>ho</b>/<b>ho</b>;", "<b>ho</b> again/<b>ho</b> again;"],
        ["<b>ho</b> 9;", "<b>ho</b> again 15;"],
    ];
    for (source, expected) in sources.into_iter().zip(expected) {
        assert_eq!(learned(source, &hi_ho()).unwrap(), expected, "{source}");
    }
}
