//! Many clients at once, of which some break off and some talk nonsense. `scripts/serve_load.py` is the long form.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::COMPLETIONS;
use super::client::{Answer, Model, Server, request};

const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(8);
/// Bytes by which the server may be larger at the end than it was after a quarter of the time.
const GROWTH: u64 = 24 << 20;
const TOKENS: usize = 16;
const PROMPTS: [&str; 2] = ["In the evening he", "And it came to pass"];
const MODELS: [(&str, &[&str]); 3] = [("base", &[]), ("a", &["a"]), ("b+a=-0.5", &["b", "a=-0.5"])];

#[test]
fn load_changes_no_text_and_leaves_nothing_behind() {
    let model = Model::new();
    let server = Server::start(&model, &[]);
    let pairs = MODELS
        .iter()
        .flat_map(|model| PROMPTS.map(|prompt| (model, prompt)));
    let expected: BTreeMap<(&str, &str), String> = pairs
        .map(|((name, adapters), prompt)| {
            ((*name, prompt), model.generate(prompt, TOKENS, adapters))
        })
        .collect();
    let answered = AtomicUsize::new(0);
    let began = Instant::now();
    let (server, expected, answered) = (&server, &expected, &answered);
    let early = thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut turn = client;
                while began.elapsed() < TIME {
                    turn += 1;
                    act(server, expected, turn);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(TIME / 4);
        resident(server.process())
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let idle = |metrics: &str| {
        metrics.contains("qoft_running_sequences 0\n")
            && metrics.contains("qoft_waiting_sequences 0\n")
    };
    while !idle(&server.get("/metrics").body) {
        assert!(Instant::now() < deadline, "texts go on");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(answered.load(Ordering::Relaxed) >= 2 * CLIENTS);
    if let (Some(early), Some(late)) = (early, resident(server.process())) {
        assert!(late < early + GROWTH, "{early} bytes became {late}");
    }
}

/// One of the things that clients do.
fn act(server: &Server, expected: &BTreeMap<(&str, &str), String>, turn: usize) {
    let ((model, prompt), text) = expected.iter().nth(turn % expected.len()).expect("a text");
    let body = |stream: bool| {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": stream});
        request(COMPLETIONS, &body.to_string(), "")
    };
    match turn % 7 {
        0 | 2 | 4 => {
            let answer = server.raw(body(false).as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(
                answer.json()["choices"][0]["text"],
                text.as_str(),
                "{model}"
            );
        }
        1 | 3 => {
            let events = server.raw(body(true).as_bytes()).events();
            let texts = events
                .iter()
                .filter_map(|event| event["choices"][0]["text"].as_str());
            assert_eq!(texts.collect::<String>(), *text, "{model}");
        }
        5 => {
            let mut connection = server.connect();
            let whole = body(true);
            // All of it, or a part.
            let sent = if turn.is_multiple_of(2) {
                whole.len()
            } else {
                whole.len() - 9
            };
            connection
                .write_all(&whole.as_bytes()[..sent])
                .expect("a request");
            if sent == whole.len() {
                let _ = connection.read(&mut [0; 40]).expect("a beginning");
            }
        }
        _ => {
            let wrong = [
                "{",
                "[]",
                "{\"model\": \"base\", \"prompt\": 7}",
                "{\"model\": \"base\"}",
            ];
            let answer: Answer =
                server.raw(request(COMPLETIONS, wrong[turn / 7 % 4], "").as_bytes());
            assert_eq!(answer.status, 400, "{}", answer.body);
        }
    }
}

/// Bytes of a process that are in memory, where the system tells.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}
