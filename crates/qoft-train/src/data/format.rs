//! The forms that a row can have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The form of a row: which fields it has, and what they mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataFormat {
    /// Whichever the fields of each row show.
    #[default]
    Auto,
    /// `instruction` and `output`, with `input`, `system` and `history` if there are any.
    Alpaca,
    /// `conversations`, messages with `from` and `value`.
    ShareGpt,
    /// `messages` with `role` and `content`, as OpenAI has them.
    Messages,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text`.
    Text,
    /// `input_ids`.
    TokenIds,
    /// `chosen` and `rejected`: two answers, of which one is better.
    Preference,
    /// `label` or `kto_tag`: an answer that is good or bad.
    Judged,
}

/// Formats with their names; the first name of each is shown.
const NAMES: [(DataFormat, &[&str]); 9] = [
    (DataFormat::Auto, &["auto"]),
    (DataFormat::Alpaca, &["alpaca"]),
    (DataFormat::ShareGpt, &["sharegpt"]),
    (
        DataFormat::Messages,
        &["openai", "messages", "chat", "chatml"],
    ),
    (
        DataFormat::PromptCompletion,
        &["prompt-completion", "prompt_completion", "completion"],
    ),
    (DataFormat::Text, &["text", "pretrain"]),
    (
        DataFormat::TokenIds,
        &["tokens", "tokenized", "pre-tokenized", "input_ids"],
    ),
    (
        DataFormat::Preference,
        &["preference", "ranking", "pairwise"],
    ),
    (DataFormat::Judged, &["kto", "unpaired-preference"]),
];

/// Names under which rows have messages with `from` and `value`.
pub(super) const CONVERSATIONS: [&str; 2] = ["conversations", "conversation"];

impl DataFormat {
    /// All formats that a row can have.
    pub(super) const OF_ROWS: [Self; 8] = [
        Self::Alpaca,
        Self::ShareGpt,
        Self::Messages,
        Self::PromptCompletion,
        Self::Text,
        Self::TokenIds,
        Self::Preference,
        Self::Judged,
    ];

    /// The format that the fields of a row show: the first one that is complete.
    pub(super) fn of(fields: &Map<String, Value>) -> Option<Self> {
        let has = |name: &str| fields.contains_key(name);
        let messages = fields.get("messages");
        let first = messages.and_then(|list| list.get(0));
        Some(match () {
            () if has("input_ids") => Self::TokenIds,
            () if first.is_some_and(|first| first.get("from").is_some()) => Self::ShareGpt,
            () if messages.is_some() => Self::Messages,
            () if CONVERSATIONS.into_iter().any(has) => Self::ShareGpt,
            () if has("prompt") && has("completion") => Self::PromptCompletion,
            () if has("instruction") && has("output") => Self::Alpaca,
            () if has("text") => Self::Text,
            () => return None,
        })
    }
}

impl fmt::Display for DataFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().find(|(format, _)| format == self);
        f.write_str(names.map_or("", |(_, names)| names[0]))
    }
}

impl FromStr for DataFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        let known = NAMES.iter().find(|(_, names)| names.contains(&&*name));
        known.map(|(format, _)| *format).ok_or_else(|| {
            let all: Vec<&str> = NAMES.iter().map(|(_, names)| names[0]).collect();
            format!("not a format of data; there are {}", all.join(", "))
        })
    }
}

/// How many rows had each format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatCounts([usize; DataFormat::OF_ROWS.len()]);

impl FormatCounts {
    /// Counts one more row.
    pub(super) fn add(&mut self, format: DataFormat) {
        self.add_rows(format, 1);
    }

    pub(super) fn add_rows(&mut self, format: DataFormat, rows: usize) {
        let places = DataFormat::OF_ROWS.iter().zip(&mut self.0);
        if let Some((_, count)) = places.into_iter().find(|(other, _)| **other == format) {
            *count += rows;
        }
    }

    /// The formats that rows had, with the numbers of these rows.
    pub fn iter(&self) -> impl Iterator<Item = (DataFormat, usize)> + '_ {
        let counts = DataFormat::OF_ROWS.into_iter().zip(self.0);
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        for (format, names) in NAMES {
            for name in names {
                assert_eq!(name.parse::<DataFormat>(), Ok(format));
            }
            assert_eq!(format.to_string(), names[0]);
        }
        assert!("json".parse::<DataFormat>().unwrap_err().contains("alpaca"));
    }

    #[test]
    fn the_first_complete_format_is_taken() {
        let of = |row: Value| DataFormat::of(row.as_object().unwrap());
        let alpaca = json!({"instruction": "", "input": "", "output": "", "text": ""});
        assert_eq!(of(alpaca), Some(DataFormat::Alpaca));
        assert_eq!(
            of(json!({"instruction": "", "text": ""})),
            Some(DataFormat::Text)
        );
        let from = json!({"messages": [{"from": "human", "value": ""}]});
        assert_eq!(of(from), Some(DataFormat::ShareGpt));
        assert_eq!(of(json!({"messages": []})), Some(DataFormat::Messages));
        assert_eq!(of(json!({"question": "", "answer": ""})), None);
    }
}
