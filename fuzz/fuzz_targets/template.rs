//! A chat template, the special tokens and the messages that it renders.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qoft_chat::{ChatTemplate, Message, Variables};
use qoft_fuzz::parts;

fuzz_target!(|input: &[u8]| {
    let [source, variables, messages] = parts(input);
    let Ok(source) = str::from_utf8(source) else {
        return;
    };
    let variables: Variables = serde_json::from_slice(variables).unwrap_or_default();
    let messages: Vec<Message> = serde_json::from_slice(messages).unwrap_or_default();
    if let Ok(template) = ChatTemplate::new(source, &variables) {
        let _ = template.render(&messages, &variables, true);
        let _ = template.render_assistant(&messages, &variables, &|_| true, &str::len);
    }
});
