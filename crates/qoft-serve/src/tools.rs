//! Calls of tools in what a model writes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use serde_json::{Value, json};

use crate::engine::StopStrings;

/// The form in which a model writes calls of tools. The chat template shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolForm {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, any number of them: Hermes, Qwen 2.5 and Qwen 3.
    Tagged,
    /// One JSON object alone, `{"name": …, "parameters": …}`: Llama 3.
    Object,
    /// A JSON list alone, `[{"name": …, "arguments": …}]`, perhaps behind `[TOOL_CALLS]`: Mistral.
    List,
}

const OPENING: &str = "<tool_call>";
const CLOSING: &str = "</tool_call>";
const LIST: &str = "[TOOL_CALLS]";

impl ToolForm {
    /// The form that the text of a chat template shows.
    pub fn of_template(source: &str) -> Option<Self> {
        let has = |text: &str| source.contains(text);
        if has(OPENING) {
            // Other models put calls of another form between the same marks.
            return (!has("<function=")).then_some(Self::Tagged);
        }
        if has(LIST) {
            return Some(Self::List);
        }
        let llama = has("<|start_header_id|>") && has("parameters");
        llama.then_some(Self::Object)
    }

    /// The name of a call: that of call `at` in text `index` of a request. Mistral's templates take back no other
    /// names than those of nine letters and digits.
    pub fn call_id(self, request: u64, index: usize, at: usize) -> String {
        match self {
            Self::Tagged | Self::Object => format!("call_{request}_{index}_{at}"),
            Self::List => {
                let parts = [request, index as u64, at as u64];
                let mut left = BuildHasherDefault::<DefaultHasher>::default().hash_one(parts);
                let mut digit = || {
                    let digit = (left % 36) as u32;
                    left /= 36;
                    char::from_digit(digit, 36).unwrap_or('0')
                };
                (0..9).map(|_| digit()).collect()
            }
        }
    }

    /// The calls in a text that holds nothing else; `None` if it cannot be read so.
    fn calls(self, text: &str) -> Option<Vec<Call>> {
        let text = text.trim();
        let calls: Option<Vec<Call>> = match self {
            Self::Tagged => {
                let parts = text.split(OPENING).map(str::trim);
                let parts = parts.filter(|part| !part.is_empty());
                parts
                    .map(|part| {
                        let (call, rest) = part.split_once(CLOSING).unwrap_or((part, ""));
                        rest.trim().is_empty().then_some(())?;
                        Call::read(&serde_json::from_str(call.trim()).ok()?)
                    })
                    .collect()
            }
            Self::Object => Some(vec![Call::read(&serde_json::from_str(text).ok()?)?]),
            Self::List => {
                let text = text.strip_prefix(LIST).unwrap_or(text);
                let list: Vec<Value> = serde_json::from_str(text.trim()).ok()?;
                list.iter().map(Call::read).collect()
            }
        };
        calls.filter(|calls| !calls.is_empty())
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// The arguments, as a text of JSON.
    pub arguments: String,
}

impl Call {
    fn read(value: &Value) -> Option<Self> {
        let arguments = value.get("arguments").or_else(|| value.get("parameters"));
        let arguments = match arguments {
            None => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(arguments) => arguments.to_string(),
        };
        Some(Self {
            name: value.get("name")?.as_str()?.to_owned(),
            arguments,
        })
    }

    /// As OpenAI tells it; `id` is one of its own.
    pub fn to_json(&self, id: &str, index: usize) -> Value {
        json!({
            "index": index,
            "id": id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        })
    }
}

/// Tells text and calls apart while they come.
#[derive(Debug, Clone)]
pub struct ToolReader {
    form: ToolForm,
    opening: StopStrings,
    /// What may be calls.
    held: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space was there.
    Beginning,
    Text,
    Call,
}

impl ToolReader {
    /// For a model that writes calls in this form.
    pub fn new(form: ToolForm) -> Self {
        Self {
            form,
            opening: StopStrings::new(vec![OPENING.to_owned()]),
            held: String::new(),
            state: State::Beginning,
        }
    }

    /// The form of calls.
    pub fn form(&self) -> ToolForm {
        self.form
    }

    /// The text that belongs to no call.
    pub fn push(&mut self, text: &str) -> String {
        if self.state == State::Call {
            self.held.push_str(text);
            return String::new();
        }
        if self.form == ToolForm::Tagged {
            // What was held back before goes on here.
            let (before, found) = self.opening.push(text);
            if found {
                self.state = State::Call;
                self.held = self.opening.behind();
            }
            return before;
        }
        if self.state == State::Text {
            return text.to_owned();
        }
        self.held.push_str(text);
        let begins = match (self.held.trim_start().chars().next(), self.form) {
            (None, _) => return String::new(),
            (Some('{'), ToolForm::Object) | (Some('['), ToolForm::List) => true,
            _ => false,
        };
        match begins {
            true => {
                self.state = State::Call;
                String::new()
            }
            false => {
                self.state = State::Text;
                std::mem::take(&mut self.held)
            }
        }
    }

    /// The calls, and the text of what looked like some and cannot be read.
    pub fn finish(&mut self) -> (String, Vec<Call>) {
        let text = self.opening.finish();
        let held = std::mem::take(&mut self.held);
        if self.state != State::Call {
            return (text + &held, Vec::new());
        }
        match self.form.calls(&held) {
            Some(calls) => (text, calls),
            None => (text + &held, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: ToolForm, pieces: &[&str]) -> (String, Vec<Call>) {
        let mut reader = ToolReader::new(form);
        let mut text: String = pieces.iter().map(|piece| reader.push(piece)).collect();
        let (rest, calls) = reader.finish();
        text += &rest;
        (text, calls)
    }

    fn call(name: &str, arguments: &str) -> Call {
        let (name, arguments) = (name.to_owned(), arguments.to_owned());
        Call { name, arguments }
    }

    #[test]
    fn calls_are_found_in_each_form() {
        let one = r#"{"name": "sum", "arguments": {"a": 1}}"#;
        let tagged =
            format!("Let me see.\n<tool_call>\n{one}\n</tool_call>\n<tool_call>{one}</tool_call>");
        let pieces: Vec<String> = tagged.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let sum = call("sum", r#"{"a":1}"#);
        let both = vec![sum.clone(), sum.clone()];
        for pieces in [&pieces[..], &[&tagged]] {
            assert_eq!(
                read(ToolForm::Tagged, pieces),
                ("Let me see.\n".into(), both.clone())
            );
        }
        let llama = [" {\"name\": \"f\", ", "\"parameters\": {}}"];
        assert_eq!(
            read(ToolForm::Object, &llama),
            (String::new(), vec![call("f", "{}")])
        );
        let mistral = [
            "[TOOL_CALLS] [",
            r#"{"name": "sum", "arguments": {"a": 1}}]"#,
        ];
        assert_eq!(
            read(ToolForm::List, &mistral),
            (String::new(), vec![sum.clone()])
        );
        assert_eq!(read(ToolForm::List, &mistral[1..]).1, []);
        let list = format!("[{one}]");
        assert_eq!(read(ToolForm::List, &[&list]), (String::new(), vec![sum]));
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for (form, text) in [
            (ToolForm::Tagged, "a < b and <tool"),
            (ToolForm::Tagged, "<tool_call>not JSON</tool_call>"),
            (ToolForm::Object, "{not JSON}"),
            (ToolForm::Object, " plain {\"name\": 1}"),
            (ToolForm::List, "[1, 2]"),
            (ToolForm::List, "  "),
        ] {
            assert_eq!(read(form, &[text]), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn calls_have_names_that_templates_take_back() {
        let ids: Vec<String> = (0..40)
            .map(|at| ToolForm::List.call_id(at / 20, 0, (at % 20) as usize))
            .collect();
        let is_name =
            |id: &String| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(ids.iter().all(is_name), "{ids:?}");
        let different: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert_eq!(ToolForm::Tagged.call_id(3, 0, 1), "call_3_0_1");
    }

    #[test]
    fn templates_show_their_form() {
        assert_eq!(
            ToolForm::of_template("x <tool_call> y"),
            Some(ToolForm::Tagged)
        );
        assert_eq!(ToolForm::of_template("<tool_call><function=f>"), None);
        assert_eq!(ToolForm::of_template("[TOOL_CALLS]"), Some(ToolForm::List));
        let llama = "<|start_header_id|> {\"name\": x, \"parameters\": y}";
        assert_eq!(ToolForm::of_template(llama), Some(ToolForm::Object));
        assert_eq!(ToolForm::of_template("{{ messages }}"), None);
    }
}
