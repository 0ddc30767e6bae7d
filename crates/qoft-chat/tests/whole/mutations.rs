//! Templates with random changes: an error or a text, soon, and never a panic.

use std::fs;
use std::time::{Duration, Instant};

use qoft_chat::{ChatError, ChatTemplate, Message, Variables};
use serde_json::{Value, json};

/// A generator of numbers (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// What replaces parts of a template.
const PIECES: [&str; 60] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{#",
    "#}",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    ".",
    "|",
    "~",
    "+",
    "-",
    "*",
    "**",
    "/",
    "//",
    "%",
    "=",
    "==",
    "!=",
    "<",
    ">=",
    ",",
    ":",
    " in ",
    " is ",
    " not ",
    " and ",
    " or ",
    " if ",
    " else ",
    "loop",
    "messages",
    "none",
    "[::-1]",
    "[-1:]",
    "(*messages)",
    "| tojson",
    "| length",
    "| map('upper') | list",
    "| join(',')",
    "| sort",
    "| batch(3, 0)",
    ".items()",
    ".split('a', 1)",
    "% (1, 'x')",
    "9999999999999999999",
    "1e308",
    "range(99999)",
    "é🙂",
];

fn mutated(source: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = source.chars().collect();
    for _ in 0..=random.below(4) {
        let start = random.below(characters.len() + 1);
        let length = random.below(12).min(characters.len() - start);
        let piece = match random.below(4) {
            0 => String::new(),
            1 => {
                let from = random.below(characters.len() + 1);
                let count = random.below(40).min(characters.len() - from);
                characters[from..from + count].iter().collect()
            }
            _ => PIECES[random.below(PIECES.len())].to_owned(),
        };
        characters.splice(start..start + length, piece.chars());
    }
    characters.into_iter().collect()
}

/// How often templates did what.
#[derive(Debug, Default)]
struct Counts {
    rendered: usize,
    failed: usize,
    unparsed: usize,
}

impl Counts {
    /// Runs `source`; anything but a panic or a hang is right.
    fn run(&mut self, source: &str, messages: &[Message], variables: &Variables) {
        let start = Instant::now();
        let template = ChatTemplate::new(source, &Variables::new());
        match template.and_then(|template| template.render(messages, variables, true)) {
            Ok(_) => self.rendered += 1,
            Err(ChatError::Syntax { .. }) => self.unparsed += 1,
            Err(_) => self.failed += 1,
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{source}");
    }
}

/// A conversation with tools, and what a template sees beside it.
fn conversation() -> (Vec<Message>, Variables) {
    let file = fs::read(qoft_fixtures::path("templates/conversations.json")).unwrap();
    let conversations: Value = serde_json::from_slice(&file).unwrap();
    let conversation = &conversations[15];
    let messages = conversation["messages"].as_array().unwrap().iter();
    let variables =
        json!({"tools": conversation["tools"], "bos_token": "<s>", "eos_token": "</s>"});
    let messages = messages.map(|message| message.as_object().unwrap().clone());
    (messages.collect(), variables.as_object().unwrap().clone())
}

#[test]
fn mutated_published_templates_end() {
    let (messages, variables) = conversation();
    let mut random = Random(7);
    let mut counts = Counts::default();
    for package in ["axolotl", "trl", "unsloth"] {
        let folder = qoft_fixtures::path(&format!("templates/{package}"));
        let entries = fs::read_dir(folder).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let source = fs::read_to_string(path).unwrap();
            for _ in 0..12 {
                counts.run(&mutated(&source, &mut random), &messages, &variables);
            }
        }
    }
    // Mutations that only ever broke the syntax would test the parser alone.
    assert!(counts.rendered > 20 && counts.failed > 20, "{counts:?}");
}

#[test]
fn mutated_snippets_end() {
    let file = fs::read(qoft_fixtures::path("jinja.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let variables = file["variables"].as_object().unwrap();
    let mut random = Random(11);
    let mut counts = Counts::default();
    for entry in file["templates"].as_array().unwrap() {
        let source = entry[0].as_str().unwrap();
        for _ in 0..5 {
            counts.run(&mutated(source, &mut random), &[], variables);
        }
    }
    assert!(counts.rendered > 500 && counts.failed > 100, "{counts:?}");
}

#[test]
fn random_pieces_end() {
    let (messages, variables) = conversation();
    let mut random = Random(13);
    let mut counts = Counts::default();
    for _ in 0..5_000 {
        let count = random.below(12);
        let pieces: String = (0..count)
            .map(|_| PIECES[random.below(PIECES.len())])
            .collect();
        counts.run(&format!("{{{{ {pieces} }}}}"), &messages, &variables);
        counts.run(&pieces, &messages, &variables);
    }
    assert!(counts.rendered > 1_000 && counts.failed > 10, "{counts:?}");
}
