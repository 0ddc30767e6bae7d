//! Calls of tools, by a model that writes them in the form of each published template.

use serde_json::{Value, json};

use super::CHAT;
use super::client::Server;
use crate::common::arg;

/// Templates, and what each model says before it calls.
const TEMPLATES: [(&str, &str, &[&str]); 3] = [
    ("trl/qwen3", "Let me look.\n", &["get_weather", "get_time"]),
    ("trl/llama3_1", "", &["get_weather"]),
    ("axolotl/mistral_v3_tekken", "", &["get_weather"]),
];

fn question(more: Value) -> Value {
    let function = |name: &str, properties: Value| {
        json!({"type": "function", "function": {"name": name, "description": "Tells it.",
            "parameters": {"type": "object", "properties": properties}}})
    };
    let mut body = json!({
        "model": "base",
        "messages": [{"role": "user", "content": "How warm is it in Paris?"}],
        "tools": [
            function("get_weather", json!({"city": {"type": "string", "description": "Where."}})),
            function("get_time", json!({})),
        ],
        "temperature": 0,
        "max_tokens": 20,
    });
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body
}

#[test]
fn tools_are_called_whole_and_in_streams_and_their_answers_go_back() {
    let model = qoft_fixtures::path("scripted");
    for (template, said, names) in TEMPLATES {
        let file = qoft_fixtures::path(&format!("templates/{template}.jinja"));
        let server = Server::of(&model, &["--chat-template", arg(&file)]);
        let whole = server.post(CHAT, &question(json!({})));
        assert_eq!(whole.status, 200, "{template}: {}", whole.body);
        let choice = whole.json()["choices"][0].clone();
        assert_eq!(
            choice["finish_reason"], "tool_calls",
            "{template}: {choice}"
        );
        let message = &choice["message"];
        match said {
            "" => assert_eq!(message["content"], Value::Null, "{template}"),
            said => assert_eq!(message["content"], said, "{template}"),
        }
        let calls = message["tool_calls"].as_array().expect("calls");
        let called: Vec<&Value> = calls.iter().map(|call| &call["function"]["name"]).collect();
        assert_eq!(called, names, "{template}");
        let arguments = calls[0]["function"]["arguments"].as_str();
        let arguments: Value = serde_json::from_str(arguments.expect("text")).expect("JSON");
        assert_eq!(arguments, json!({"city": "Paris"}), "{template}");

        let streamed = server
            .post(CHAT, &question(json!({"stream": true})))
            .events();
        let deltas = || streamed.iter().map(|event| &event["choices"][0]["delta"]);
        let text: String = deltas()
            .filter_map(|delta| delta["content"].as_str())
            .collect();
        assert_eq!(text, said, "{template}");
        let parts: Vec<&Value> = deltas()
            .filter_map(|delta| delta["tool_calls"].as_array())
            .flatten()
            .collect();
        assert_eq!(parts.len(), calls.len(), "{template}");
        for (index, (part, call)) in parts.into_iter().zip(calls).enumerate() {
            assert_eq!(part["index"], index, "{template}");
            assert_eq!(part["function"], call["function"], "{template}");
            assert!(part["id"].is_string() && part["type"] == "function");
        }
        let last = streamed.last().expect("events");
        assert_eq!(
            last["choices"][0]["finish_reason"], "tool_calls",
            "{template}"
        );

        // Clients send the message back as they got it, and what the tools said.
        let mut messages = question(json!({}))["messages"].clone();
        let list = messages.as_array_mut().expect("messages");
        list.push(message.clone());
        for call in calls {
            list.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "20 degrees"}));
        }
        let answer = server.post(CHAT, &question(json!({"messages": messages})));
        assert_eq!(answer.status, 200, "{template}: {}", answer.body);
        let choice = answer.json()["choices"][0].clone();
        let text = &choice["message"]["content"];
        assert_eq!(text, "It is 20 degrees in Paris.", "{template}");
        assert_eq!(choice["finish_reason"], "stop", "{template}");
        assert!(choice["message"].get("tool_calls").is_none(), "{template}");

        // Without tools, or without leave to call them, all of it is text.
        let without = server.post(CHAT, &question(json!({"tool_choice": "none"})));
        let text = without.json()["choices"][0]["message"]["content"].clone();
        assert!(
            text.as_str()
                .is_some_and(|text| text.contains("get_weather")),
            "{template}: {text}"
        );
        let forced = server.post(CHAT, &question(json!({"tool_choice": "required"})));
        assert_eq!(forced.status, 400, "{template}: {}", forced.body);
    }
}
