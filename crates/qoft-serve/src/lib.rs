//! A server that is compatible with OpenAI's: one packed model, whose adapters requests choose by the name of
//! the model.
//!
//! The thread that calls [`serve`] computes. All texts pass through the model together, each with its own
//! adapters; they join and leave while others go on. Connections are the matter of other threads, which hand
//! texts to it by a queue.

mod api;
mod app;
mod choosing;
mod engine;
mod error;
mod listener;
mod metrics;
mod names;
mod options;
mod tools;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use qoft_models::CausalLm;
use qoft_train::tokenizer::Tokenizer;
use qoft_train::{GenerateModel as _, GenerationConfig, TokenModel as _};
use tokio::runtime::Builder;

use app::{App, Chat};
use engine::{Engine, Queue};
use listener::Limited;
use metrics::Metrics;
use names::Names;

pub use engine::NamedAdapter;
pub use error::ServeError;
pub use options::ServeOptions;

/// How often it is looked whether the server is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long connections have for their last bytes.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What is served.
#[derive(Debug)]
#[non_exhaustive]
pub struct Served {
    /// The model, without adapters or with those that all texts get.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How its files say that tokens are chosen.
    pub generation: GenerationConfig,
    /// The adapters that requests can name.
    pub adapters: Vec<NamedAdapter>,
    /// Where the model's weights are.
    pub device: Device,
}

impl Served {
    /// A model without adapters.
    pub fn new(model: CausalLm, tokenizer: Tokenizer, device: &Device) -> Self {
        Self {
            model,
            tokenizer,
            generation: GenerationConfig::default(),
            adapters: Vec::new(),
            device: device.clone(),
        }
    }
}

/// Serves until `stop` is true; what is being written then is finished, if that does not take too long.
/// `on_ready` gets the address once requests are accepted.
///
/// # Errors
/// [`ServeError`], before the first request.
pub fn serve(
    served: Served,
    options: ServeOptions,
    stop: &'static AtomicBool,
    on_ready: &mut dyn FnMut(SocketAddr),
) -> Result<(), ServeError> {
    if !options.host.is_loopback() && options.api_keys.is_empty() {
        return Err(ServeError::Open(options.host));
    }
    let names = served.adapters.iter().map(|adapter| adapter.name.clone());
    let names = Names::new(&options.model_name, names.collect())?;
    let address = SocketAddr::new(options.host, options.port);
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let tokenizer = Arc::new(served.tokenizer);
    let own = |adapter: &NamedAdapter| {
        let templates = adapter.chat_templates.as_ref()?;
        Some((adapter.name.clone(), Chat::new(&tokenizer, templates)))
    };
    let chats = served.adapters.iter().filter_map(own).collect();
    let (queue, metrics) = (
        Arc::new(Queue::new(options.max_queue)),
        Arc::new(Metrics::default()),
    );
    let mut engine = Engine::new(
        &served.model,
        served.adapters,
        &tokenizer,
        &served.device,
        &options,
        (queue.clone(), metrics.clone()),
    )?;
    let app = Arc::new(App {
        names,
        chat: Chat::new(&tokenizer, tokenizer.chat_templates()),
        chats,
        generation: served.generation,
        context_length: served.model.context_length(),
        vocab_size: served.model.vocab_size(),
        tokenizer: tokenizer.clone(),
        queue,
        metrics,
        created: app::now(),
        options: options.clone(),
    });
    drop(served.model);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let server = {
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        let listener = Limited::new(listener, options.max_connections, options.timeout);
        let server = axum::serve(listener, api::router(app));
        runtime.spawn(async move { server.with_graceful_shutdown(asked(stop)).await })
    };
    on_ready(address);
    engine.run(stop, options.shutdown_timeout);
    // Whoever does not take the last bytes by then is left.
    let _ = runtime.block_on(async { tokio::time::timeout(LAST_BYTES, server).await });
    runtime.shutdown_timeout(LOOK);
    Ok(())
}

/// Waits until the server is asked to stop.
async fn asked(stop: &'static AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK).await;
    }
}
