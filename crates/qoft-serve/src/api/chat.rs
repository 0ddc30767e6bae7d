//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use qoft_train::chat::{Message, Variables, text_of_parts};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Chunks, collect, stream};
use super::shape::{Kind, Shape, StreamOptions, finish_reason};
use super::{logprobs, request};
use crate::app::App;
use crate::choosing::{ChoosingFields, MOST_LOGPROBS};
use crate::engine::What;
use crate::error::ApiError;
use crate::names::Wanted;
use crate::tools::{ToolForm, ToolReader};

const KIND: Kind = Kind {
    prefix: "chatcmpl",
    whole: "chat.completion",
    chunk: "chat.completion.chunk",
};

/// The fields of a request.
#[derive(Debug, Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    chat_template_kwargs: Option<Variables>,
    #[serde(flatten)]
    choosing: ChoosingFields,
}

/// Answers a conversation.
pub(super) async fn answer(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut asked: ChatRequest = request::read(request, &app.options).await?;
    let wanted = app.names.wanted(&asked.model)?;
    let tool_form = app.chat(&wanted).tool_form;
    let tools = asked.tools()?;
    let with_tools = tools.is_some();
    let (messages, variables) = asked.conversation(tools)?;
    let renderer = app.clone();
    let prompt =
        tokio::task::spawn_blocking(move || prompt(&renderer, &wanted, &messages, &variables));
    let prompt = prompt
        .await
        .map_err(|_| ApiError::internal("the chat template failed"))??;
    let room = app.context_length.saturating_sub(prompt.len()).max(1);
    let mut choosing = asked.choosing.clone().choosing(&app.generation, room)?;
    choosing.top_logprobs = match (asked.logprobs, asked.top_logprobs) {
        (Some(true), top) => Some(top.unwrap_or(0)),
        (_, Some(top)) if top > 0 => {
            return Err(ApiError::field(
                "top_logprobs",
                "goes with `logprobs: true`",
            ));
        }
        _ => None,
    };
    if choosing.top_logprobs > Some(MOST_LOGPROBS) {
        return Err(ApiError::field(
            "top_logprobs",
            format!("at most {MOST_LOGPROBS}"),
        ));
    }
    let prompt_tokens = prompt.len();
    let events = app.submit(&asked.model, &[prompt], &choosing)?;
    let n = choosing.n;
    let form = tool_form.filter(|_| with_tools);
    let options = asked.stream_options;
    let shape = Shape::new(app, KIND, asked.model, prompt_tokens, options);
    let mut texts = Texts::new(shape, n, form);
    if asked.stream == Some(true) {
        return Ok(stream(events, n, texts));
    }
    collect(events, n, &mut |index, what| {
        texts.hear(index, what);
    })
    .await?;
    Ok(Json(texts.whole()).into_response())
}

impl ChatRequest {
    /// The tools that the template is told of.
    fn tools(&mut self) -> Result<Option<Vec<Value>>, ApiError> {
        let choice = self.tool_choice.as_ref();
        match choice.map(|choice| choice.as_str().unwrap_or("a tool")) {
            Some("none") => Ok(None),
            None | Some("auto") => Ok(self.tools.take().filter(|tools| !tools.is_empty())),
            Some(other) => {
                let message = format!("{other} is not possible here; `auto` and `none` are");
                Err(ApiError::field("tool_choice", message))
            }
        }
    }

    /// The messages, and what else the template sees.
    fn conversation(
        &mut self,
        tools: Option<Vec<Value>>,
    ) -> Result<(Vec<Message>, Variables), ApiError> {
        let format = self
            .response_format
            .as_ref()
            .and_then(|format| format.get("type"));
        if let Some(format) = format.filter(|format| *format != "text") {
            let message = format!("{format} is not possible here; \"text\" is");
            return Err(ApiError::field("response_format", message));
        }
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "there are none"));
        }
        let mut messages = std::mem::take(&mut self.messages);
        for (index, message) in messages.iter_mut().enumerate() {
            let place = format!("messages[{index}]");
            let role = message.get("role").and_then(Value::as_str);
            let Some(role) = role else {
                return Err(ApiError::field(&place, "has no `role`"));
            };
            // OpenAI's newer word for it, which no template knows.
            if role == "developer" {
                message.insert("role".into(), "system".into());
            }
            // Beside calls of tools, which templates put texts before.
            if message.get("content").is_some_and(Value::is_null) {
                message.insert("content".into(), "".into());
            }
            if let Some(Value::Array(parts)) = message.get("content") {
                let text = text_of_parts(parts).map_err(|_| {
                    ApiError::field(&place, "this model reads parts of type `text` only")
                })?;
                message.insert("content".into(), text.into());
            }
        }
        let mut variables = self.chat_template_kwargs.take().unwrap_or_default();
        if let Some(tools) = tools {
            variables.insert("tools".into(), tools.into());
        }
        Ok((messages, variables))
    }
}

/// The tokens of a conversation, with the opening of the answer.
fn prompt(
    app: &App,
    wanted: &Wanted,
    messages: &[Message],
    variables: &Variables,
) -> Result<Vec<u32>, ApiError> {
    let template = app.chat(wanted).template.as_ref();
    let template = template.map_err(|error| ApiError::bad(error.clone()))?;
    let rendered = template.render_answers(messages, &[], variables);
    let (text, _) = rendered.map_err(|error| ApiError::field("messages", error))?;
    // The template writes the special tokens itself.
    let ids = app.tokenizer.encode(&text, false);
    ids.map_err(|error| ApiError::internal(error.to_string()))
}

/// The answers to a conversation.
struct Texts {
    shape: Shape,
    answers: Vec<Answer>,
}

#[derive(Default)]
struct Answer {
    tools: Option<ToolReader>,
    text: String,
    logprobs: Vec<Value>,
    has_logprobs: bool,
    calls: Vec<Value>,
    reason: &'static str,
}

/// What is new in an answer.
struct News {
    text: String,
    logprobs: Vec<Value>,
    calls: Vec<Value>,
    reason: Option<&'static str>,
}

impl Texts {
    fn new(shape: Shape, n: usize, form: Option<ToolForm>) -> Self {
        let answer = || Answer {
            tools: form.map(ToolReader::new),
            ..Answer::default()
        };
        Self {
            shape,
            answers: (0..n).map(|_| answer()).collect(),
        }
    }

    fn hear(&mut self, index: usize, what: What) -> News {
        let answer = &mut self.answers[index];
        let mut news = News {
            text: String::new(),
            logprobs: Vec::new(),
            calls: Vec::new(),
            reason: None,
        };
        match what {
            What::Token { text, id, logprobs } => {
                self.shape.usage.completion += 1;
                news.text = match &mut answer.tools {
                    Some(tools) => tools.push(&text),
                    None => text,
                };
                let tokenizer = &self.shape.app.tokenizer;
                let told = logprobs.map(|told| logprobs::of_chat(tokenizer, id, &told));
                answer.has_logprobs |= told.is_some();
                news.logprobs.extend(told);
            }
            What::End { stopped } => {
                if let Some(tools) = &mut answer.tools {
                    let (text, calls) = tools.finish();
                    news.text = text;
                    let calls = calls.iter().enumerate();
                    let (form, number) = (tools.form(), self.shape.number());
                    let told = calls.map(|(at, call)| {
                        let id = form.call_id(number, index, at);
                        call.to_json(&id, at)
                    });
                    news.calls = told.collect();
                }
                answer.reason = match news.calls.is_empty() {
                    true => finish_reason(stopped),
                    false => "tool_calls",
                };
                news.reason = Some(answer.reason);
            }
            What::Failed(_) => {}
        }
        answer.text += &news.text;
        answer.logprobs.extend(news.logprobs.iter().cloned());
        answer.calls.extend(news.calls.iter().cloned());
        news
    }

    /// All of it at once.
    fn whole(self) -> Value {
        let choices = self.answers.into_iter().enumerate().map(|(index, answer)| {
            let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
            if !answer.calls.is_empty() {
                message["content"] = match answer.text.trim().is_empty() {
                    true => Value::Null,
                    false => answer.text.into(),
                };
                let mut calls = answer.calls;
                for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                    call.remove("index");
                }
                message["tool_calls"] = calls.into();
            }
            let logprobs = answer
                .has_logprobs
                .then(|| json!({"content": answer.logprobs}));
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": answer.reason,
            })
        });
        self.shape.whole(choices.collect())
    }
}

impl Chunks for Texts {
    fn begin(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let first = |index| json!({"index": index, "delta": delta, "finish_reason": null});
        let choices = 0..self.answers.len();
        choices
            .map(|index| self.shape.chunk(vec![first(index)]))
            .collect()
    }

    fn event(&mut self, index: usize, what: What) -> Vec<Value> {
        let news = self.hear(index, what);
        let mut delta = json!({});
        if !news.text.is_empty() {
            delta["content"] = news.text.into();
        }
        if !news.calls.is_empty() {
            delta["tool_calls"] = news.calls.into();
        }
        let logprobs = (!news.logprobs.is_empty()).then(|| json!({"content": news.logprobs}));
        let is_empty = delta.as_object().is_some_and(serde_json::Map::is_empty);
        if is_empty && logprobs.is_none() && news.reason.is_none() {
            return Vec::new();
        }
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": news.reason,
        });
        vec![self.shape.chunk(vec![choice])]
    }

    fn end(&mut self) -> Vec<Value> {
        self.shape.last()
    }
}
