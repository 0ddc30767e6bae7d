//! The body of a request.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::options::ServeOptions;

/// Reads the JSON of a request.
///
/// Who sends another type than JSON is refused: pages of other sites could make a browser send such requests
/// without asking this server first.
///
/// # Errors
/// If it is too large, too slow, or something else.
pub async fn read<T: DeserializeOwned>(
    request: Request,
    options: &ServeOptions,
) -> Result<T, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media_type());
    }
    let limit = options.max_body_bytes;
    let told = request.headers().get(header::CONTENT_LENGTH);
    let told = told.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    let body = tokio::time::timeout(options.timeout, to_bytes(request.into_body(), limit)).await;
    let body = body.map_err(|_| ApiError::timeout())?;
    let body = body.map_err(|error| {
        let message = error.to_string();
        match message.contains("length limit") {
            true => ApiError::too_large(limit),
            false => ApiError::bad(format!("the body cannot be read: {message}")),
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad(format!("the body: {error}")))
}
