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
mod calibration;
mod commands;
mod data;
mod exit;
mod files;
mod launcher;
mod located;
mod messages;
mod print;
mod processes;
mod progress;
mod stop;
mod trained_on;
mod vocabulary;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use qoft::Registries;

use args::{Cli, Command, DataCommand};
use print::Kind;
use processes::Processes;

/// More threads than any machine has; each takes memory for its stack.
const MOST_THREADS: usize = 1024;
/// Rayon's own way to say how many there are.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// Runs the command that the arguments of the process name, with all backends that are linked
/// into the program, and prints an error if it fails.
///
/// `--help`, `--version` and wrong arguments end the process. Messages are logged to stderr as
/// the environment variable `QOFT_LOG` says, unless the program has a `tracing` subscriber. Signals
/// that ask the program to stop end it without leaving anything half done. Call this from the main
/// thread, before there are others.
pub fn run() -> ExitCode {
    run_with(Registries::linked)
}

/// As [`run`], with the registries that `registries` gives, for programs that build their own: where the
/// linker collects nothing, or some schemes are to be left out.
///
/// ```no_run
/// use qoft::Registries;
/// use qoft::core::Registry;
///
/// # fn main() -> std::process::ExitCode {
/// qoft_cli::run_with(|| {
///     let mut registries = Registries::linked()?;
///     registries.schemes = Registry::new(registries.schemes.registrations())?;
///     Ok(registries)
/// })
/// # }
/// ```
pub fn run_with(registries: impl FnOnce() -> qoft::core::Result<Registries>) -> ExitCode {
    stop::watch();
    let cli = Cli::from_arguments();
    messages::show();
    let processes = match Processes::begin() {
        Ok(processes) => processes,
        Err(error) => {
            say(&error);
            return ExitCode::FAILURE;
        }
    };
    let registries = registries().map_err(Into::into);
    let result = registries.and_then(|registries| execute(cli, &registries, &processes));
    let code = match result {
        Ok(()) => Ok(0),
        Err(error) if error.is::<stop::Stopped>() => processes.stopped(),
        Err(error) => Err(error),
    };
    let code = code.and_then(|code| processes.end().map(|()| code));
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            processes.fail(&messages::with_causes(&error), || say(&error));
            ExitCode::FAILURE
        }
    }
}

/// Says an error, and what may help.
fn say(error: &anyhow::Error) {
    print::message(
        Kind::Error,
        format_args!("{}", messages::with_causes(error)),
    );
    let mut causes = error.chain();
    let cause = causes.find_map(|cause| cause.downcast_ref::<qoft::core::Error>());
    if let Some(help) = cause.and_then(messages::help) {
        print::message(Kind::Other("help"), format_args!("{help}"));
    }
}

/// Reads the options of a training from a YAML file, as `qoft train --config` does.
///
/// # Errors
/// If the file cannot be read, or has something else than options.
#[cfg(fuzzing)]
pub fn read_train_options(path: &std::path::Path) -> anyhow::Result<()> {
    let flags = args::TrainArgs {
        config: Some(path.to_owned()),
        ..args::TrainArgs::default()
    };
    let args = flags.with_file()?;
    args.config()?;
    args.adapter_config(&qoft::peft::Families::linked()?)?;
    Ok(())
}

fn execute(cli: Cli, registries: &Registries, processes: &Processes) -> anyhow::Result<()> {
    let mut threads = cli.threads;
    let mut command = cli.command;
    if let Some(args) = command.training() {
        *args = std::mem::take(args).with_file()?;
        threads = threads.or(args.threads);
    }
    processes.check_command(&command)?;
    use_threads(threads, processes)?;
    // One of them brings from the Hub what all need.
    processes.first_then_others(|| command.locate())?;
    match command {
        Command::Quickstart(args) => commands::quickstart::run(&args, registries),
        Command::Inspect(args) => commands::inspect::run(&args, registries),
        Command::Backends(args) => commands::backends::run(&args, registries),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Dequantize(args) => commands::dequantize::run(&args, registries),
        Command::Quantize(args) => commands::quantize::run(&args, registries),
        Command::Train(args) if args.dry_run => commands::estimate::run(&args, registries),
        Command::Train(args) => commands::train::run(&args, registries, processes),
        Command::Estimate(args) => commands::estimate::run(&args, registries),
        Command::LrFind(args) => commands::lr_find::run(&args, registries),
        Command::Merge(args) => commands::merge::run(&args, registries),
        Command::Export(args) => commands::export::run(&args, registries),
        Command::Data(DataCommand::Preview(args)) => commands::preview::run(&args, registries),
        Command::Eval(args) => commands::eval::run(&args, registries, processes),
        Command::Generate(args) => commands::generate::run(&args, registries),
        Command::Push(args) => commands::push::run(&args),
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
        Command::Chat(args) => commands::chat::run(&args, registries),
        #[cfg(feature = "serve")]
        Command::Serve(args) => commands::serve::run(&args, registries),
    }
}

/// Sets the number of threads of all computing, Burn's among it; what rayon chooses if `None`, or this
/// process's share of the processors where there are others beside it.
///
/// This thread is one of them: handing each operation to others and sleeping until they are done
/// costs two switches of threads.
fn use_threads(threads: Option<NonZeroUsize>, processes: &Processes) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    let variable = std::env::var(THREADS_VARIABLE).ok();
    let variable = variable.and_then(|text| text.parse().ok());
    let (name, threads) = match (threads, variable) {
        (Some(threads), _) => ("--threads", threads.get()),
        (None, Some(threads)) => (THREADS_VARIABLE, threads),
        // 0 leaves the choice to rayon.
        (None, None) => ("--threads", 0),
    };
    ensure!(
        threads <= MOST_THREADS,
        "{name} {threads}: at most {MOST_THREADS}; this machine has {}",
        std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
    );
    pool.num_threads(processes.threads(threads)?)
        .build_global()
        .context("--threads")
}
