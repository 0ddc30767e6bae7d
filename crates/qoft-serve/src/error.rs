//! What can go wrong: for who runs a server, and for who asks it.

use std::net::SocketAddr;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen at {address}: {source}; another port can be given by --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than this machine could ask without a key.
    #[error(
        "{0} can be reached from other machines: give a key that they need by --api-key, or listen at \
         127.0.0.1"
    )]
    Open(std::net::IpAddr),
    /// An adapter cannot be used.
    #[error("adapter `{name}`: {source}")]
    Adapter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: Box<qoft_core::Error>,
    },
    /// A name that requests could not mean.
    #[error("the name `{name}` cannot be an adapter's: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The runtime of the connections does not start.
    #[error("cannot start to serve: {0}")]
    Runtime(#[source] std::io::Error),
}

/// An error of a request, as OpenAI's servers tell it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// What is wrong, and the way out.
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A request that cannot be answered.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that cannot be used.
    pub fn field(param: &str, message: impl std::fmt::Display) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::bad(format!("`{param}`: {message}"))
        }
    }

    /// A model that there is not.
    pub fn no_model(name: &str, known: &[String]) -> Self {
        let message = format!(
            "there is no model `{name}`; there are: {}",
            known.join(", ")
        );
        Self {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// A missing or wrong key.
    pub fn key() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "this server wants a key: send the header `Authorization: Bearer KEY`",
            )
        }
    }

    /// A page of another site asks a server without keys; `header` tells so by its value.
    pub fn other_site(header: &str, value: &str) -> Self {
        let message = format!(
            "the header `{header}: {value}` names another site, and this server has no key that keeps pages of \
             other sites out: ask it as localhost or 127.0.0.1, or give it a key by --api-key"
        );
        Self {
            code: Some("other_site"),
            ..Self::new(StatusCode::FORBIDDEN, message)
        }
    }

    /// The queue is full.
    pub fn busy() -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests are waiting; try again later",
            )
        }
    }

    /// The server is about to end.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
    }

    /// It took too long.
    pub fn timeout() -> Self {
        Self {
            code: Some("timeout"),
            ..Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request took longer than this server allows",
            )
        }
    }

    /// Nothing is there.
    pub fn no_route(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no `{path}` here"))
    }

    /// It is there, but not for this method.
    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "the method does not fit this address",
        )
    }

    /// The body is too large.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("a request has at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// The body is no JSON by its own account.
    pub fn media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "requests are JSON: send the header `Content-Type: application/json`",
        )
    }

    /// The fault is not the request's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.to_json())).into_response()
    }
}
