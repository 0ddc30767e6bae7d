//! `/v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Chunks, collect, stream};
use super::logprobs::CompletionLogprobs;
use super::request;
use super::shape::{Kind, Shape, StreamOptions, finish_reason};
use crate::app::App;
use crate::choosing::{ChoosingFields, MOST_LOGPROBS};
use crate::engine::What;
use crate::error::ApiError;

const KIND: Kind = Kind {
    prefix: "cmpl",
    whole: "text_completion",
    chunk: "text_completion",
};

/// OpenAI's default.
const MAX_TOKENS: usize = 16;
/// Prompts of a request, at most.
const MOST_PROMPTS: usize = 1024;

/// The fields of a request.
#[derive(Debug, Deserialize)]
struct CompletionRequest {
    model: String,
    prompt: Prompts,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(flatten)]
    choosing: ChoosingFields,
}

/// Texts or token ids, one or several.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, or token ids, of one prompt or of several"
)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

/// Continues texts.
pub(super) async fn answer(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let asked: CompletionRequest = request::read(request, &app.options).await?;
    app.names.wanted(&asked.model)?;
    if asked.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "is not possible here"));
    }
    let mut choosing = asked.choosing.choosing(&app.generation, MAX_TOKENS)?;
    choosing.top_logprobs = asked.logprobs;
    if asked.logprobs > Some(MOST_LOGPROBS) {
        return Err(ApiError::field(
            "logprobs",
            format!("at most {MOST_LOGPROBS}"),
        ));
    }
    let echo = asked.echo == Some(true);
    if echo && asked.logprobs.is_some() {
        return Err(ApiError::field(
            "echo",
            "is not possible with `logprobs` here",
        ));
    }
    let reader = app.clone();
    let prompts = tokio::task::spawn_blocking(move || read(&reader, asked.prompt, echo));
    let prompts = prompts
        .await
        .map_err(|_| ApiError::internal("the tokenizer failed"))??;
    let (ids, echoes): (Vec<Vec<u32>>, Vec<String>) = prompts.into_iter().unzip();
    let events = app.submit(&asked.model, &ids, &choosing)?;
    let prompt_tokens = ids.iter().map(Vec::len).sum();
    let n = choosing.n;
    let texts = ids.len() * n;
    let answer = |index: usize| Answer {
        text: echoes[index / n].clone(),
        ..Answer::default()
    };
    let mut texts = Texts {
        shape: Shape::new(app, KIND, asked.model, prompt_tokens, asked.stream_options),
        answers: (0..texts).map(answer).collect(),
    };
    let count = texts.answers.len();
    if asked.stream == Some(true) {
        return Ok(stream(events, count, texts));
    }
    collect(events, count, &mut |index, what| {
        texts.hear(index, what);
    })
    .await?;
    Ok(Json(texts.whole()).into_response())
}

/// The ids of prompts, and what is said of them first.
fn read(app: &App, prompts: Prompts, echo: bool) -> Result<Vec<(Vec<u32>, String)>, ApiError> {
    let failed =
        |error: qoft_train::tokenizer::TokenizerError| ApiError::internal(error.to_string());
    let of_text = |text: String| {
        let ids = app.tokenizer.encode(&text, true).map_err(failed)?;
        Ok((ids, if echo { text } else { String::new() }))
    };
    let of_ids = |ids: Vec<u32>| {
        let text = match echo {
            true => app.tokenizer.decode(&ids, true).map_err(failed)?,
            false => String::new(),
        };
        Ok((ids, text))
    };
    let prompts: Vec<_> = match prompts {
        Prompts::Text(text) => vec![of_text(text)?],
        Prompts::Ids(ids) => vec![of_ids(ids)?],
        Prompts::Texts(texts) if texts.len() <= MOST_PROMPTS => {
            texts.into_iter().map(of_text).collect::<Result<_, _>>()?
        }
        Prompts::ManyIds(many) if many.len() <= MOST_PROMPTS => {
            many.into_iter().map(of_ids).collect::<Result<_, _>>()?
        }
        Prompts::Texts(_) | Prompts::ManyIds(_) => {
            return Err(ApiError::field(
                "prompt",
                format!("at most {MOST_PROMPTS} at once"),
            ));
        }
    };
    match prompts.is_empty() {
        true => Err(ApiError::field("prompt", "there is none")),
        false => Ok(prompts),
    }
}

struct Texts {
    shape: Shape,
    answers: Vec<Answer>,
}

#[derive(Default)]
struct Answer {
    text: String,
    logprobs: Option<CompletionLogprobs>,
    reason: &'static str,
}

impl Texts {
    /// The text that is new, how likely its token was, and why the text ended, if it did.
    fn hear(&mut self, index: usize, what: What) -> (String, Option<Value>, Option<&'static str>) {
        let answer = &mut self.answers[index];
        match what {
            What::Token { text, id, logprobs } => {
                self.shape.usage.completion += 1;
                let offset = answer.text.chars().count();
                let tokenizer = &self.shape.app.tokenizer;
                let told = logprobs.map(|told| {
                    let all = answer.logprobs.get_or_insert_default();
                    all.add(tokenizer, id, &told, offset);
                    let mut new = CompletionLogprobs::default();
                    new.add(tokenizer, id, &told, offset);
                    new.to_json()
                });
                answer.text += &text;
                (text, told, None)
            }
            What::End { stopped } => {
                answer.reason = finish_reason(stopped);
                (String::new(), None, Some(answer.reason))
            }
            What::Failed(_) => (String::new(), None, None),
        }
    }

    fn whole(self) -> Value {
        let choices = self.answers.into_iter().enumerate().map(|(index, answer)| {
            let logprobs = answer.logprobs.map(|logprobs| logprobs.to_json());
            json!({
                "index": index,
                "text": answer.text,
                "logprobs": logprobs,
                "finish_reason": answer.reason,
            })
        });
        self.shape.whole(choices.collect())
    }
}

impl Chunks for Texts {
    fn begin(&mut self) -> Vec<Value> {
        let echoes = self.answers.iter().enumerate();
        let echoes = echoes.filter(|(_, answer)| !answer.text.is_empty());
        let choice = |(index, answer): (usize, &Answer)| {
            let text = &answer.text;
            json!({"index": index, "text": text, "logprobs": null, "finish_reason": null})
        };
        echoes
            .map(|echo| self.shape.chunk(vec![choice(echo)]))
            .collect()
    }

    fn event(&mut self, index: usize, what: What) -> Vec<Value> {
        let (text, logprobs, reason) = self.hear(index, what);
        if text.is_empty() && logprobs.is_none() && reason.is_none() {
            return Vec::new();
        }
        let choice = json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        });
        vec![self.shape.chunk(vec![choice])]
    }

    fn end(&mut self) -> Vec<Value> {
        self.shape.last()
    }
}
