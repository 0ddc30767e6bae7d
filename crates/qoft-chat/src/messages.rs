//! Conversations as transformers hands them to a template.

use serde_json::{Map, Value};

/// The names under which messages carry the model's reasoning, the first one with a value counts.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages as transformers' `apply_chat_template` hands them to a template: without keys
/// whose value is null, and with their reasoning under the names that templates read.
pub(crate) fn prepared_messages(messages: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
    messages.iter().map(prepared).collect()
}

fn prepared(message: &Map<String, Value>) -> Map<String, Value> {
    let entries = message.iter().filter(|(_, value)| !value.is_null());
    let entries = entries.map(|(name, value)| (name.clone(), value.clone()));
    let named = |name: &&str| message.get(*name).filter(|value| !value.is_null());
    let Some(reasoning) = REASONING.iter().find_map(named) else {
        return entries.collect();
    };
    // Templates that print whole messages show the order.
    let first = [("thinking".to_owned(), reasoning.clone())];
    let last = [("reasoning_content".to_owned(), reasoning.clone())];
    first.into_iter().chain(entries).chain(last).collect()
}
