//! The program `qoft` as a library: [`run`] has all of its commands.
//!
//! A program that has schemes of its own links their crates and calls it:
//!
//! ```no_run
//! // use my_scheme as _;
//!
//! fn main() -> std::process::ExitCode {
//!     qoft_cli::run()
//! }
//! ```

mod args;
mod commands;
mod files;
mod print;
mod progress;

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};

/// Runs the command that the arguments of the process name, with all backends that are linked
/// into the program, and prints an error if it fails.
///
/// `--help`, `--version` and wrong arguments end the process. Messages are logged to stderr as
/// the environment variable `QOFT_LOG` says, unless the program has a `tracing` subscriber.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("QOFT_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // An error says that there is a subscriber already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let mut causes = error.chain();
            let cause = causes.find_map(|cause| cause.downcast_ref::<qoft::core::Error>());
            if let Some(feature) = cause.and_then(qoft::missing_feature) {
                eprintln!(
                    "help: this build of qoft lacks the scheme `{feature}`; \
                     build it with the Cargo feature `{feature}` or `all-schemes`"
                );
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let mut threads = cli.threads;
    let command = match cli.command {
        Command::Train(args) => {
            let args = args.with_file()?;
            threads = threads.or(args.threads);
            Command::Train(Box::new(args))
        }
        command => command,
    };
    use_threads(threads)?;
    match command {
        Command::Quickstart(args) => commands::quickstart::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Backends(args) => commands::backends::run(&args),
        Command::Dequantize(args) => commands::dequantize::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Merge(args) => commands::merge::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
    }
}

/// Sets the number of threads of all computing, Burn's among it; what rayon chooses if `None`.
///
/// This thread is one of them: handing each operation to others and sleeping until they are done
/// costs two switches of threads.
fn use_threads(threads: Option<NonZeroUsize>) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    // 0 leaves the choice to rayon.
    let pool = pool.num_threads(threads.map_or(0, NonZeroUsize::get));
    pool.build_global().context("--threads")
}
