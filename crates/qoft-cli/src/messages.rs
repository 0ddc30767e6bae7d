//! Messages of the libraries, and errors.

use std::fmt::{Debug, Write};

use qoft::SCHEMES;
use qoft::core::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry};

use crate::print::{self, Kind};

/// What is shown unless another choice is made. What the crate `tokenizers` says of a file is said by
/// qoft with the file's name.
const FILTER: &str = "warn,tokenizers=off";

/// Shows what the libraries log, as the environment variable `QOFT_LOG` says, unless the program
/// has a subscriber of its own.
pub fn show() {
    let filter = EnvFilter::try_from_env("QOFT_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    // An error says that there is a subscriber already.
    let _ = registry().with(Messages.with_filter(filter)).try_init();
}

/// Writes each event as a line.
struct Messages;

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let kind = match *event.metadata().level() {
            Level::ERROR => Kind::Error,
            Level::WARN => Kind::Warning,
            Level::INFO => Kind::Other("info"),
            Level::DEBUG => Kind::Other("debug"),
            Level::TRACE => Kind::Other("trace"),
        };
        print::message(kind, format_args!("{}{}", text.message, text.fields));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // Where in its code a library says it.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// What to do about a layer that no backend claims; `None` if the error is another one.
pub fn help(error: &Error) -> Option<String> {
    let built_in = || SCHEMES.iter().filter(|scheme| scheme.built_in);
    let built_in: Vec<&str> = built_in().map(|scheme| scheme.feature).collect();
    let here = match built_in.is_empty() {
        true => "dense layers alone".to_owned(),
        false => format!("{}, and dense layers", built_in.join(", ")),
    };
    if let Some(feature) = qoft::missing_feature(error) {
        return Some(format!(
            "this build of qoft lacks the scheme `{feature}`; build it with the Cargo feature \
             `{feature}` or `all-schemes`. It has {here}"
        ));
    }
    let absent = SCHEMES.iter().filter(|scheme| !scheme.built_in);
    let absent: Vec<&str> = absent.map(|scheme| scheme.feature).collect();
    if let Error::Config { key, .. } = error
        && key == "quant_method"
        && !absent.is_empty()
    {
        return Some(format!(
            "this build of qoft lacks {}, by whose other keys such settings may be known; the Cargo feature \
             `all-schemes` brings all. It has {here}",
            absent.join(", ")
        ));
    }
    if let Error::Quantize { layer, .. } = error {
        let name = layer.rsplit('.').next().unwrap_or(layer);
        return Some(format!(
            "leave layers of this name dense: `--quantize-skip lm_head,{name}`, with all other names that \
             are to stay dense; or choose other settings, or another scheme"
        ));
    }
    if let Error::CannotQuantize { scheme, .. } = error {
        return instead(scheme).map(str::to_owned);
    }
    let method = qoft::unknown_method(error)?;
    let schemes: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.feature).collect();
    Some(format!(
        "qoft has no scheme for the quantization method `{method}`; it has {}. A crate of your own \
         can bring another one: see docs/add-a-scheme.md",
        schemes.join(", ")
    ))
}

/// What makes weights of a scheme that nothing is quantized into.
fn instead(scheme: &str) -> Option<&'static str> {
    match scheme {
        "gguf" => Some(
            "`qoft export --to gguf` writes a GGUF file of a model, with an adapter or without; a merge into \
             GGUF comes from a model in GGUF",
        ),
        "aqlm" => Some(
            "AQLM learns its codebooks: quantize with its own library (scripts/quantize_aqlm.py), and load \
             what that wrote",
        ),
        "dense" => Some(
            "a dense model is used as it is without this option; `qoft dequantize` and `qoft merge \
             --dequantize` write dense weights",
        ),
        _ => None,
    }
}

/// An error with its causes, each said once: many errors repeat the words of their cause.
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let missing = Error::io("a")(std::io::Error::other("no such file"));
        assert_eq!(with_causes(&missing.into()), "a: no such file");
        let outer = Err::<(), _>(std::io::Error::other("full")).context("cannot write");
        assert_eq!(with_causes(&outer.unwrap_err()), "cannot write: full");
    }
}
