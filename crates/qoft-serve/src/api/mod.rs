//! What can be asked, in OpenAI's words.

mod answer;
mod chat;
mod completions;
mod logprobs;
mod request;
mod shape;
mod site;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// The chat page: one file, which asks nobody but this server.
const PAGE: &str = include_str!("../page.html");

/// All addresses.
pub fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .layer(from_fn_with_state(app.clone(), check_key));
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(no_route)
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(from_fn_with_state(app.clone(), site::check))
        .layer(from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn no_route(request: Request) -> ApiError {
    ApiError::no_route(request.uri().path())
}

async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    )];
    (headers, Html(PAGE)).into_response()
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = app.metrics.to_text(app.queue.len());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn described(app: &App, name: &str) -> Value {
    let parent = (name != app.names.base).then(|| app.names.base.clone());
    json!({
        "id": name,
        "object": "model",
        "created": app.created,
        "owned_by": "qoft",
        "parent": parent,
        "max_model_len": app.context_length,
    })
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let names = app.names.all();
    let all: Vec<Value> = names.iter().map(|name| described(&app, name)).collect();
    Json(json!({"object": "list", "data": all}))
}

async fn model(
    State(app): State<Arc<App>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.names.wanted(&name)?;
    Ok(Json(described(&app, &name)))
}

/// Lets nobody in without a key, if there are keys.
async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keys = &app.options.api_keys;
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or("");
    // All keys are looked at, so that the time tells nothing.
    let known = keys.iter().filter(|key| is_same(key, given)).count() > 0;
    match keys.is_empty() || known {
        true => next.run(request).await,
        false => ApiError::key().into_response(),
    }
}

/// Whether two keys are the same, in a time that depends on their lengths alone.
fn is_same(a: &str, b: &str) -> bool {
    let differing = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// Counts answers.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // Addresses that there are not would be as many as somebody likes.
    let path = match request.uri().path() {
        "/" => "/",
        "/health" => "/health",
        "/metrics" => "/metrics",
        "/v1/chat/completions" => "/v1/chat/completions",
        "/v1/completions" => "/v1/completions",
        path if path == "/v1/models" || path.starts_with("/v1/models/") => "/v1/models",
        _ => "other",
    };
    let response = next.run(request).await;
    let status: StatusCode = response.status();
    app.metrics.answered(path, status.as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn keys_are_compared_whole() {
        assert!(is_same("abc", "abc"));
        for other in ["", "ab", "abcd", "abd"] {
            assert!(!is_same("abc", other));
        }
    }
}
