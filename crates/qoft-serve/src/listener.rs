//! Connections: not more than so many, and none that is silent for long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// How long a new connection may say nothing.
const FIRST_BYTE: Duration = Duration::from_secs(30);
/// How long a connection may wait for its next request.
const NEXT_REQUEST: Duration = Duration::from_secs(75);
/// What a request may take beyond the time of its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, such as for want of file descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// Accepts so many connections at once.
pub struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    answer: Duration,
}

impl Limited {
    /// Answers may take as long as `answer`.
    pub fn new(listener: TcpListener, connections: usize, answer: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(connections.max(1))),
            answer,
        }
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Tokens are small, and each should come at once. Without it they come all the same.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, self.answer, place), address);
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is silent for too long.
pub struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    answer: Duration,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, answer: Duration, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: Box::pin(sleep(FIRST_BYTE)),
            answer,
            _place: place,
        }
    }

    /// What a pending operation gives: an error if nothing has happened for too long.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Something happened; the next thing may take so long.
    fn alive(&mut self, longest: Duration) {
        self.silence.as_mut().reset(Instant::now() + longest);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Pending => this.pending(context),
            ready => {
                this.alive(this.answer + REQUEST);
                ready
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Pending => this.pending(context),
            ready => {
                this.alive(NEXT_REQUEST);
                ready
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
