//! Options of `serve`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use qoft_serve::ServeOptions;

use super::{AdapterArg, BaseArgs};

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The model.
    #[command(flatten)]
    pub model: BaseArgs,
    /// An adapter that requests can name, with what its strengths are multiplied by if wanted; may be given
    /// several times. Without a name it has that of its folder.
    #[arg(long, value_name = "[NAME=]PATH[=STRENGTH]", value_parser = NamedAdapterArg::parser())]
    pub adapter: Vec<NamedAdapterArg>,
    /// The name of the model without adapters [default: that of its folder].
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// The address to listen at; others than 127.0.0.1 need --api-key.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port to listen at; 0: any that is free.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// A key that requests need; may be given several times [default: the environment variable QOFT_API_KEY, or
    /// none].
    #[arg(long, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// Chat template for messages, in place of the model's: a file, a name among several of the model,
    /// or `alpaca`, `chatml`, `llama3`, `mistral`, `vicuna` or `zephyr`.
    #[arg(long, value_name = "FILE|NAME")]
    pub chat_template: Option<String>,
    /// Texts that are written together.
    #[arg(
        long,
        visible_alias = "max-num-seqs",
        default_value = "32",
        help_heading = "Limits"
    )]
    pub max_batch_size: NonZeroUsize,
    /// Texts that may wait; more are refused with status 429.
    #[arg(long, default_value_t = 256, help_heading = "Limits")]
    pub max_queue: usize,
    /// Tokens that a text gets at most, whatever is asked for.
    #[arg(long, default_value_t = 4096, help_heading = "Limits")]
    pub max_tokens: usize,
    /// Bytes of a request at most.
    #[arg(long, default_value_t = 4 << 20, help_heading = "Limits")]
    pub max_body_size: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 1024, help_heading = "Limits")]
    pub max_connections: usize,
    /// Seconds that a request may take, the time that it waits included.
    #[arg(
        long,
        default_value_t = 600,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub timeout: u64,
    /// Seconds that texts still have when the server is asked to stop.
    #[arg(
        long,
        default_value_t = 30,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub shutdown_timeout: u64,
}

impl ServeArgs {
    /// Puts folders here in place of names on the Hub.
    pub fn locate(&mut self) -> Result<()> {
        self.model.locate()?;
        let mut adapters = self.adapter.iter_mut().map(|named| &mut named.adapter);
        adapters.try_for_each(AdapterArg::locate)
    }

    /// How the server listens, and what it allows.
    pub fn options(&self) -> ServeOptions {
        let name = self.served_model_name.clone();
        let folder = self.model.model.canonicalize();
        let folder = folder.unwrap_or_else(|_| self.model.model.to_path_buf());
        let mut options = ServeOptions::new(name.unwrap_or_else(|| file_name(&folder)));
        options.host = self.host;
        options.port = self.port;
        options.api_keys = self.api_key.clone();
        if options.api_keys.is_empty() {
            options.api_keys.extend(std::env::var("QOFT_API_KEY").ok());
        }
        options.api_keys.retain(|key| !key.is_empty());
        options.max_batch_size = self.max_batch_size;
        options.max_queue = self.max_queue;
        options.max_tokens = self.max_tokens.max(1);
        options.max_body_bytes = self.max_body_size;
        options.max_connections = self.max_connections;
        options.timeout = Duration::from_secs(self.timeout);
        options.shutdown_timeout = Duration::from_secs(self.shutdown_timeout);
        options
    }
}

fn file_name(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// An adapter with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedAdapterArg {
    /// Its name.
    pub name: String,
    /// Its folder and strength.
    pub adapter: AdapterArg,
}

impl NamedAdapterArg {
    /// What turns an argument into an adapter with a name.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    /// What stands before the first `=` is the name, unless all of it, perhaps with a strength, is a folder.
    fn parse(argument: OsString) -> Result<Self, String> {
        let unnamed = |adapter: AdapterArg| Self {
            name: file_name(&adapter.folder),
            adapter,
        };
        if let Ok(adapter) = AdapterArg::parse(argument.clone())
            && PathBuf::from(&adapter.folder).exists()
        {
            return Ok(unnamed(adapter));
        }
        let split = argument.to_str().and_then(|text| text.split_once('='));
        match split {
            None => Ok(unnamed(AdapterArg::parse(argument)?)),
            Some((name, rest)) => Ok(Self {
                name: name.to_owned(),
                adapter: AdapterArg::parse(rest.into())?,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_folders() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("lr=1e-3");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.to_str().unwrap();
        let parse = |argument: &str| {
            let parsed = NamedAdapterArg::parse(argument.into())?;
            let AdapterArg { folder, strength } = parsed.adapter;
            Ok::<_, String>((parsed.name, folder, strength))
        };
        let is =
            |name: &str, folder: &str, strength| Ok((name.to_owned(), folder.into(), strength));
        assert_eq!(parse(path), is("lr=1e-3", path, 1.0));
        assert_eq!(parse(&format!("{path}=0.5")), is("lr=1e-3", path, 0.5));
        assert_eq!(parse(&format!("a={path}")), is("a", path, 1.0));
        assert_eq!(parse(&format!("a={path}=0.5")), is("a", path, 0.5));
        assert_eq!(parse("b=runs/b"), is("b", "runs/b", 1.0));
        assert_eq!(parse("runs/b"), is("b", "runs/b", 1.0));
    }
}
