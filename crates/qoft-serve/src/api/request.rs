//! The body of a request.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use qoft_core::unfit;
use serde::de::DeserializeOwned;
use serde_json::Value;

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
    fields(&body)
}

/// Reads the fields of a body; an error names the one that is wrong.
fn fields<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let given: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad(format!("the body is not valid JSON: {error}")))?;
    let error = match T::deserialize(&given) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let said = error.to_string();
    if let Some(rest) = said.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        return Err(ApiError::field(name, "it is missing"));
    }
    let reason = unfit(&error).unwrap_or_else(|| said.clone());
    let Value::Object(given) = given else {
        return Err(ApiError::bad(format!("the body: {reason}")));
    };
    let with_those = |wanted: &dyn Fn(&String) -> bool| {
        let fields = given.iter().filter(|(name, _)| wanted(name));
        let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
        T::deserialize(Value::Object(fields.collect()))
    };
    // What is wrong goes with its field, or is there where it is alone if it has to be there.
    let is_wrong = |name: &&String| with_those(&|other| other != *name).is_ok();
    let is_wrong_alone = |name: &&String| {
        let error = with_those(&|other| other == *name).err();
        error.is_some_and(|alone| alone.to_string() == said)
    };
    let mut names = given.keys();
    let wrong = names.find(is_wrong);
    match wrong.or_else(|| given.keys().find(is_wrong_alone)) {
        Some(name) => Err(ApiError::field(name, reason)),
        None => Err(ApiError::bad(format!("the body: {reason}"))),
    }
}
