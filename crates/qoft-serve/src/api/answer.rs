//! Answers from what the engine tells: whole ones, and streams of events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, channel};
use tokio_stream::wrappers::ReceiverStream;

use crate::engine::{Event, What};
use crate::error::ApiError;

/// What keeps proxies and clients from giving up while a text waits for its turn.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Makes the events of a stream.
pub trait Chunks: Send + 'static {
    /// What is said before the first token.
    fn begin(&mut self) -> Vec<Value>;
    /// What is said of an event. Failures are said by the stream itself.
    fn event(&mut self, index: usize, what: What) -> Vec<Value>;
    /// What is said after all texts.
    fn end(&mut self) -> Vec<Value>;
}

/// All that happens to the texts of a request, until `texts` of them are over.
///
/// # Errors
/// If one of them cannot be written.
pub async fn collect(
    mut events: UnboundedReceiver<Event>,
    texts: usize,
    hear: &mut (dyn FnMut(usize, What) + Send),
) -> Result<(), ApiError> {
    let mut over = 0;
    while over < texts {
        match events.recv().await {
            None => return Err(ApiError::internal("the text was lost")),
            Some(Event {
                what: What::Failed(error),
                ..
            }) => return Err(error),
            Some(Event { index, what }) => {
                over += usize::from(matches!(what, What::End { .. }));
                hear(index, what);
            }
        }
    }
    Ok(())
}

/// Server-sent events of all that happens to the texts of a request.
///
/// The text goes on only while somebody listens: a client that has gone closes the channel, and the engine
/// sees that.
pub fn stream(
    mut events: UnboundedReceiver<Event>,
    texts: usize,
    mut chunks: impl Chunks,
) -> Response {
    let (send, receive) = channel::<Result<String, Infallible>>(16);
    tokio::spawn(async move {
        for chunk in chunks.begin() {
            if send.send(Ok(data(&chunk))).await.is_err() {
                return;
            }
        }
        let mut over = 0;
        while over < texts {
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    if send.send(Ok(": waiting\n\n".to_owned())).await.is_err() {
                        return;
                    }
                    continue;
                }
                () = send.closed() => return,
            };
            let told = match event {
                None => vec![ApiError::internal("the text was lost").to_json()],
                Some(Event { index, what }) => match what {
                    What::Failed(error) => vec![error.to_json()],
                    what => {
                        over += usize::from(matches!(what, What::End { .. }));
                        chunks.event(index, what)
                    }
                },
            };
            let failed = told.iter().any(|chunk| chunk.get("error").is_some());
            for chunk in told {
                if send.send(Ok(data(&chunk))).await.is_err() {
                    return;
                }
            }
            if failed {
                return;
            }
        }
        for chunk in chunks.end() {
            if send.send(Ok(data(&chunk))).await.is_err() {
                return;
            }
        }
        // Whether it arrives is the client's matter.
        let _ = send.send(Ok("data: [DONE]\n\n".to_owned())).await;
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let body = Body::from_stream(ReceiverStream::new(receive));
    (headers, body).into_response()
}

fn data(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
