//! Chat templates by name, for models that come without one.

/// Names and templates.
const TEMPLATES: [(&str, &str); 6] = [
    ("alpaca", include_str!("builtin/alpaca.jinja")),
    ("chatml", include_str!("builtin/chatml.jinja")),
    ("llama3", include_str!("builtin/llama3.jinja")),
    ("mistral", include_str!("builtin/mistral.jinja")),
    ("vicuna", include_str!("builtin/vicuna.jinja")),
    ("zephyr", include_str!("builtin/zephyr.jinja")),
];

/// The template of this name.
#[must_use]
pub fn builtin(name: &str) -> Option<&'static str> {
    let found = TEMPLATES.iter().find(|(known, _)| *known == name);
    found.map(|(_, source)| *source)
}

/// The names of all templates.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ChatTemplate, Message, Variables};

    #[test]
    fn all_templates_show_which_turns_are_learned() {
        let messages = json!([
            {"role": "system", "content": "SYS"}, {"role": "user", "content": "one"},
            {"role": "assistant", "content": "ONE"}, {"role": "user", "content": "two"},
            {"role": "assistant", "content": "TWO"},
        ]);
        let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
        let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let tokens = tokens.as_object().unwrap();
        for name in builtin_names() {
            let template = ChatTemplate::new(builtin(name).unwrap(), tokens).unwrap();
            let rendered = template
                .render_assistant(&messages, &Variables::new(), &|_| true, &str::len)
                .unwrap();
            let learned: Vec<&str> = rendered
                .learned
                .iter()
                .map(|range| &rendered.text[range.clone()])
                .collect();
            assert_eq!(learned.len(), 2, "{name}: {}", rendered.text);
            for (turn, answer) in learned.iter().zip(["ONE", "TWO"]) {
                assert!(turn.trim_start().starts_with(answer), "{name}: {learned:?}");
                assert!(turn.len() > answer.len(), "{name} closes its turns");
            }
            assert!(rendered.text.contains("SYS"), "{name}");
            let prompt = template
                .render(&messages[..2], &Variables::new(), true)
                .unwrap();
            assert!(rendered.text.starts_with(prompt.trim_end()), "{name}");
        }
        assert_eq!(builtin("nobody's"), None);
    }
}
