//! The server, asked over plain connections.
#![cfg(unix)]

mod choosing;
pub mod client;
mod load;
mod tools;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::client::{Answer, Model, Server, request};
use crate::common::{arg, qoft, wait_until};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chat(model: &str, more: Value) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{"role": "user", "content": "And it came to pass"}],
        "max_tokens": 8,
        "temperature": 0,
    });
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body
}

#[test]
fn answers_are_those_of_generate_with_every_adapter_in_one_batch() {
    let model = Model::new();
    let server = Server::start(&model, &["--max-batch-size=16"]);
    let prompt = "In the evening he";
    let wanted: [(&str, &[&str]); 5] = [
        ("base", &[]),
        ("a", &["a"]),
        ("b", &["b"]),
        ("a=0.5", &["a=0.5"]),
        ("b+a=-0.5", &["b", "a=-0.5"]),
    ];
    let expected = wanted.map(|(_, adapters)| model.generate(prompt, 24, adapters));
    assert_ne!(expected[0], expected[1]);
    assert_ne!(expected[1], expected[2]);
    let server = &server;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|client| scope.spawn(move || server.complete(wanted[client % 5].0, prompt, 24)))
            .collect();
        for (client, written) in clients.into_iter().enumerate() {
            let written = written.join().expect("an answer");
            assert_eq!(written, expected[client % 5], "{}", wanted[client % 5].0);
        }
    });
    let value = |name: &str| -> f64 {
        let metrics = server.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a metric").trim().parse().expect("a number")
    };
    // Answers arrive before they are counted.
    wait_until("the end of all texts", || {
        value("qoft_running_sequences ") == 0.0
    });
    assert_eq!(value("qoft_generation_tokens_total "), 480.0);
    // Together, and not one after another.
    let steps = value("qoft_steps_total ");
    assert!(steps < 240.0, "{steps}");
}

#[test]
fn both_endpoints_answer_whole_and_in_streams() {
    let model = Model::new();
    let server = Server::start(&model, &[]);
    let whole = server.post(
        CHAT,
        &chat("a", json!({"n": 2, "logprobs": true, "top_logprobs": 3})),
    );
    assert_eq!(whole.status, 200, "{}", whole.body);
    let whole = whole.json();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "a");
    assert_eq!(whole["usage"]["completion_tokens"], 16);
    let [first, second] = [0, 1].map(|at| whole["choices"][at].clone());
    assert_eq!(first["message"], second["message"]);
    assert_eq!(first["finish_reason"], "length");
    let tokens = first["logprobs"]["content"].as_array().expect("tokens");
    assert_eq!(tokens.len(), 8);
    for token in tokens {
        let top = token["top_logprobs"].as_array().expect("tokens");
        assert_eq!(top.len(), 3);
        // Without draws the likeliest one is taken.
        assert_eq!(top[0]["logprob"], token["logprob"]);
        assert_eq!(top[0]["token"], token["token"]);
    }

    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let streamed = server.post(CHAT, &chat("a", options));
    assert!(
        streamed.head.contains("text/event-stream"),
        "{}",
        streamed.head
    );
    let events = streamed.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let deltas = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(first["message"]["content"], deltas.collect::<String>());
    let reasons: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["finish_reason"])
        .collect();
    assert_eq!(
        reasons.iter().filter(|reason| **reason == "length").count(),
        1
    );
    let last = events.last().expect("events");
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &json!(8))
    );

    let prompt = "He said unto them,";
    let text = server.complete("base", prompt, 20);
    let body = json!({"model": "base", "prompt": [prompt, prompt], "max_tokens": 20, "temperature": 0,
        "logprobs": 1, "stream": true});
    let events = server.post(COMPLETIONS, &body).events();
    for index in [0, 1] {
        let of = events
            .iter()
            .filter(|event| event["choices"][0]["index"] == index);
        let texts = of.filter_map(|event| event["choices"][0]["text"].as_str());
        assert_eq!(texts.collect::<String>(), text);
    }
    let echo = json!({"model": "base", "prompt": prompt, "max_tokens": 20, "temperature": 0, "echo": true});
    let echoed = server.post(COMPLETIONS, &echo).json();
    assert_eq!(echoed["choices"][0]["text"], format!("{prompt}{text}"));

    // A text ends before its stop, wherever that is cut into tokens.
    let middle: String = text.chars().skip(9).take(5).collect();
    let stop = json!({"model": "base", "prompt": prompt, "max_tokens": 20, "temperature": 0, "stop": middle});
    let stopped = server.post(COMPLETIONS, &stop).json();
    let expected = text.split(&middle).next().expect("a text");
    assert_eq!(stopped["choices"][0]["text"], expected);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");

    // Draws follow from their seed.
    let drawn = |seed: u64| {
        let body = json!({"model": "base", "prompt": prompt, "max_tokens": 20, "temperature": 1.2, "seed": seed});
        server.post(COMPLETIONS, &body).json()["choices"][0]["text"].clone()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn models_health_and_the_page_are_there() {
    let model = Model::new();
    let server = Server::start(&model, &[]);
    let models = server.get("/v1/models").json();
    let ids: Vec<&Value> = models["data"]
        .as_array()
        .expect("models")
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(ids, ["base", "a", "b"]);
    assert_eq!(server.get("/v1/models/a").json()["parent"], "base");
    assert_eq!(server.get("/v1/models/c").status, 404);
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    let page = server.get("/");
    assert!(page.head.contains("text/html") && page.head.contains("content-security-policy"));
    assert!(page.body.contains("v1/chat/completions"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let model = Model::new();
    let server = Server::start(&model, &["--max-body-size=20000"]);
    let long = "word ".repeat(600);
    for (path, body, status, word) in [
        (CHAT, json!({"model": "base"}), 400, "messages"),
        (CHAT, chat("c", json!({})), 404, "base, a, b"),
        (CHAT, chat("a+a", json!({})), 400, "twice"),
        (CHAT, chat("base", json!({"messages": []})), 400, "messages"),
        (
            CHAT,
            chat("base", json!({"messages": [{"content": "x"}]})),
            400,
            "role",
        ),
        (CHAT, chat("base", json!({"top_p": 7})), 400, "top_p"),
        (CHAT, chat("base", json!({"n": 0})), 400, "`n`"),
        (CHAT, chat("base", json!({"n": 100_000})), 400, "`n`"),
        (
            CHAT,
            chat("base", json!({"top_logprobs": 5})),
            400,
            "logprobs: true",
        ),
        (
            CHAT,
            chat("base", json!({"response_format": {"type": "json_object"}})),
            400,
            "json_object",
        ),
        (
            CHAT,
            chat(
                "base",
                json!({"messages": [{"role": "user", "content": long}]}),
            ),
            400,
            "tokens",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": []}),
            400,
            "prompt",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": [70_000]}),
            400,
            "70000",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": "x", "logprobs": 99}),
            400,
            "20",
        ),
        ("/v1/embeddings", json!({}), 404, "/v1/embeddings"),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        let error = answer.json()["error"].clone();
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(word), "{body}: {message}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(server.get(CHAT).status, 405);
    let text = request(CHAT, "{", "");
    assert_eq!(server.raw(text.as_bytes()).status, 400);
    let form = text.replace("application/json", "text/plain");
    assert_eq!(server.raw(form.as_bytes()).status, 415);
    let large = request(CHAT, &"x".repeat(30_000), "");
    assert_eq!(server.raw(large.as_bytes()).status, 413);
    let chunks = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         7530\r\n{}\r\n0\r\n\r\n",
        "x".repeat(30_000)
    );
    assert_eq!(server.raw(chunks.as_bytes()).status, 413);
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let answer = server.raw(bytes);
        assert!([0, 400].contains(&answer.status), "{}", answer.head);
    }
    // Nobody was harmed.
    assert_eq!(
        server.complete("base", "He", 2),
        server.complete("base", "He", 2)
    );
}

#[test]
fn keys_open_the_door() {
    let model = Model::new();
    let server = Server::start(&model, &["--api-key=one", "--api-key=two"]);
    let body = chat("base", json!({})).to_string();
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer three\r\n", 401),
        ("Authorization: one\r\n", 401),
        ("Authorization: Bearer one\r\n", 200),
        ("Authorization: Bearer two\r\n", 200),
    ] {
        let answer = server.raw(request(CHAT, &body, header).as_bytes());
        assert_eq!(answer.status, status, "{header}");
    }
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/health").status, 200);
    let path = model.path();
    let open = qoft(&["serve", "--model", arg(&path), "--host=0.0.0.0", "--port=0"]);
    assert_eq!(open.code, Some(1));
    assert!(open.stderr.contains("--api-key"), "{}", open.stderr);
}

#[test]
fn pages_of_other_sites_need_a_key() {
    let model = Model::new();
    let body = chat("base", json!({})).to_string();
    let rebound = |text: String| text.replace("Host: localhost", "Host: evil.com:8000");
    let server = Server::start(&model, &[]);
    let foreign = "Origin: http://evil.com\r\n";
    for text in [
        rebound(request(CHAT, &body, "")),
        rebound("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into()),
        request(CHAT, &body, foreign),
    ] {
        let answer = server.raw(text.as_bytes());
        assert_eq!(answer.status, 403, "{text}");
        let message = answer.json()["error"]["message"].clone();
        let message = message.as_str().expect("a message");
        assert!(
            message.contains("evil.com") && message.contains("--api-key"),
            "{message}"
        );
    }
    let own = format!("Origin: http://{}\r\n", server.address);
    assert_eq!(
        server.raw(request(CHAT, &body, &own).as_bytes()).status,
        200
    );
    drop(server);
    let server = Server::start(&model, &["--api-key=one"]);
    let headers = format!("{foreign}Authorization: Bearer one\r\n");
    let text = rebound(request(CHAT, &body, &headers));
    assert_eq!(server.raw(text.as_bytes()).status, 200);
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let model = Model::new();
    let server = Server::start(&model, &["--max-batch-size=2", "--max-queue=2"]);
    let long = |stream: bool| {
        let body = json!({"model": "a", "prompt": "And", "max_tokens": 200, "temperature": 0, "stream": stream,
            "ignore_eos": true, "n": 2});
        request(COMPLETIONS, &body.to_string(), "")
    };
    for stream in [true, false] {
        let mut connection = server.connect();
        connection
            .write_all(long(stream).as_bytes())
            .expect("a request");
        if stream {
            let mut first = [0; 64];
            connection.read_exact(&mut first).expect("a beginning");
        } else {
            thread::sleep(Duration::from_millis(20));
        }
        drop(connection);
    }
    // The places are free again.
    let began = Instant::now();
    let idle = || {
        server
            .get("/metrics")
            .body
            .contains("qoft_running_sequences 0\n")
    };
    while !idle() {
        assert!(began.elapsed() < Duration::from_secs(60), "they go on");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        server
            .get("/metrics")
            .body
            .contains("qoft_waiting_sequences 0\n")
    );

    // What does not fit into batch and queue is refused at once, and told so.
    let many = |n: usize| {
        let body = json!({"model": "base", "prompt": "And", "max_tokens": 150, "temperature": 0, "ignore_eos": true,
            "n": n});
        request(COMPLETIONS, &body.to_string(), "")
    };
    let mut waiting = server.connect();
    waiting.write_all(many(4).as_bytes()).expect("a request");
    let two = || {
        let metrics = server.get("/metrics").body;
        metrics.contains("qoft_running_sequences 2\n")
    };
    let began = Instant::now();
    while !two() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing runs");
    }
    let began = Instant::now();
    loop {
        let answer = server.raw(many(4).as_bytes());
        if answer.status == 429 {
            assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "nothing is refused"
        );
    }
    assert_eq!(Answer::read(waiting).status, 200);
}

#[test]
fn a_signal_lets_texts_come_to_their_end() {
    let model = Model::new();
    for signal in ["-INT", "-TERM"] {
        let server = Server::start(&model, &[]);
        let body = json!({"model": "base", "prompt": "And", "max_tokens": 120, "temperature": 0, "stream": true,
            "ignore_eos": true, "stream_options": {"include_usage": true}});
        let mut connection = server.connect();
        let asked = request(COMPLETIONS, &body.to_string(), "");
        connection.write_all(asked.as_bytes()).expect("a request");
        // The answer's head comes before its text begins.
        let mut begun = String::new();
        while !begun.contains("data: ") {
            let mut byte = [0];
            connection.read_exact(&mut byte).expect("a beginning");
            begun.push(byte[0].into());
        }
        server.signal(signal);
        let mut rest = String::new();
        connection.read_to_string(&mut rest).expect("the rest");
        assert!(rest.contains("\"completion_tokens\":120"), "{rest}");
        assert!(rest.contains("[DONE]"));
        let (status, said) = server.end();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains("stopped"), "{said}");
    }
}

#[test]
fn what_takes_too_long_is_ended() {
    let model = Model::new();
    let server = Server::start(&model, &["--timeout=0"]);
    let answer = server.post(CHAT, &chat("base", json!({})));
    assert_eq!(answer.status, 408, "{}", answer.body);
}
