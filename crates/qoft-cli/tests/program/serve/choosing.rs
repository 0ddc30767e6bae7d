//! How requests choose tokens.

use serde_json::{Value, json};

use super::COMPLETIONS;
use super::client::{Model, Server};
use crate::common::{arg, good};

const PROMPT: &str = "In the evening he";

fn completion(server: &Server, more: Value) -> Value {
    let mut body = json!({"model": "base", "prompt": PROMPT, "max_tokens": 24, "temperature": 0,
        "ignore_eos": true, "logprobs": 0});
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    let answer = server.post(COMPLETIONS, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["choices"][0].clone()
}

fn tokens(choice: &Value) -> Vec<String> {
    let tokens = choice["logprobs"]["tokens"].as_array().expect("tokens");
    let text = |token: &Value| token.as_str().expect("a text").to_owned();
    tokens.iter().map(text).collect()
}

#[test]
fn biases_and_penalties_change_what_is_written() {
    let model = Model::new();
    let server = Server::start(&model, &[]);
    let plain = completion(&server, json!({}));
    // One token alone is written, if it is wanted much more than the others.
    let forced = completion(&server, json!({"logit_bias": {"300": 100}}));
    let forced = tokens(&forced);
    assert!(forced.iter().all(|token| *token == forced[0]), "{forced:?}");
    // With the largest penalties nothing comes soon again, though it is wanted a little more than all others.
    let largest = json!({"logit_bias": {"300": 4}, "presence_penalty": 2, "frequency_penalty": 2});
    let rarely = tokens(&completion(&server, largest));
    let count = |all: &[String]| all.iter().filter(|token| **token == forced[0]).count();
    let often = tokens(&completion(&server, json!({"logit_bias": {"300": 4}})));
    assert!(
        count(&rarely) <= 2 && count(&rarely) < count(&often).max(3),
        "{rarely:?} {often:?}"
    );
    // A token that is forbidden is not written.
    let body = json!({"model": "base", "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logit_bias": {}});
    let ids = 3..2048;
    let all: serde_json::Map<String, Value> = ids
        .filter(|id| id % 2 == 0)
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    let odd = completion(&server, json!({"logit_bias": all}));
    assert_ne!(odd["text"], plain["text"]);

    // The program's own options mean the same.
    let path = model.path();
    let mut args = vec![
        "generate",
        "--model",
        arg(&path),
        "--prompt",
        PROMPT,
        "--json",
    ];
    args.extend([
        "--max-new-tokens=24",
        "--temperature=0",
        "--eos-token-id=2047",
    ]);
    args.extend([
        "--logit-bias=300=4,301=-5",
        "--presence-penalty=0.7",
        "--frequency-penalty=-0.2",
    ]);
    let told: Value = serde_json::from_str(&good(&args).stdout).expect("JSON");
    let same = json!({"logit_bias": {"300": 4, "301": -5}, "presence_penalty": 0.7, "frequency_penalty": -0.2});
    assert_eq!(told["text"], completion(&server, same)["text"]);
    assert_ne!(told["text"], plain["text"]);

    for (field, value) in [
        ("presence_penalty", json!(3)),
        ("logit_bias", json!({"99999": 1})),
        ("logit_bias", json!({"a": 1})),
    ] {
        let mut body = body.clone();
        body[field] = value;
        let answer = server.post(COMPLETIONS, &body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.json()["error"]["param"], field);
    }
}

#[test]
fn fields_of_other_types_are_named_in_plain_words() {
    let model = Model::new();
    let server = Server::start(&model, &[]);
    let good = json!({"model": "base", "prompt": PROMPT, "max_tokens": 1});
    for (field, value, says) in [
        (
            "temperature",
            json!("warm"),
            "expected a number, found \"warm\"",
        ),
        (
            "max_tokens",
            json!(-1),
            "expected a whole number of 0 or more, found -1",
        ),
        (
            "stream",
            json!("yes"),
            "expected true or false, found \"yes\"",
        ),
        ("stop", json!(5), "expected a text or a list of texts"),
        (
            "prompt",
            json!({"a": 1}),
            "expected a text, a list of texts, or token ids",
        ),
        ("model", json!(5), "expected a text, found 5"),
        ("prompt", Value::Null, "it is missing"),
    ] {
        let mut body = good.clone();
        match value {
            Value::Null => drop(body.as_object_mut().expect("fields").remove(field)),
            value => body[field] = value,
        }
        let answer = server.post(COMPLETIONS, &body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        let error = &answer.json()["error"];
        let message = error["message"].as_str().expect("a text").to_owned();
        assert!(message.contains(says), "{field}: {message}");
        assert_eq!(error["param"], field, "{message}");
    }
}
