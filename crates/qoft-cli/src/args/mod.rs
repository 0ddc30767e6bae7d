//! The command line.

mod adapter;
mod calibration;
mod chat;
mod choice;
mod data;
mod file;
mod foreign;
mod generate;
mod help;
mod load;
mod lr_find;
mod merge;
mod model;
mod named;
mod names;
mod new_tokens;
mod optimizers;
mod place;
mod preference;
mod preview;
mod processes;
mod push;
mod quantize;
mod run_options;
mod scheme_name;
#[cfg(feature = "serve")]
mod serve;
mod shell;
mod switches;
mod synonyms;
mod train;
mod train_adapter;
mod training;
mod unknown;
mod unused;
mod values;

use std::any::TypeId;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use qoft::MaxShardSize;
use qoft::core::kernels::FloatFormat;

use crate::located::{Wanted, place};
use crate::{exit, launcher, print};

pub use adapter::AdapterArg;
pub use calibration::CalibrationArgs;
pub use chat::ChatArgs;
pub use choice::ChoiceArgs;
pub use data::{DataArg, DataArgs, with_chat_template};
pub use generate::GenerateArgs;
pub use load::{LoadArgs, parse_scheme};
pub use lr_find::LrFindArgs;
pub use merge::{ExportArgs, ExportForm, MergeArgs};
pub use model::BaseArgs;
pub use model::ModelArgs;
pub use new_tokens::NewTokenArgs;
pub use place::ModelPlace;
pub use preference::{PreferenceArgs, answer_tokens};
pub use preview::{DataCommand, PreviewArgs};
pub use processes::ProcessArgs;
pub use push::PushArgs;
pub use quantize::QuantizeArgs;
pub use run_options::RunOptions;
pub use scheme_name::Naming;
#[cfg(feature = "serve")]
pub use serve::ServeArgs;
pub use shell::{CompletionsArgs, ManArgs};
pub use train::{Reports, TrainArgs};
pub use training::TrainingArgs;
pub use values::text;

/// Fine-tune quantized language models with Orthogonal Fine-Tuning (OFT).
#[derive(Debug, Parser)]
#[command(name = "qoft", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Threads that compute [default: as many as the machine has].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

impl Cli {
    /// The arguments of the process; it ends if they are wrong, or ask for help or the version.
    pub fn from_arguments() -> Self {
        let mut program = program();
        let arguments = std::env::args_os().map(synonyms::hyphenated);
        let parsed = program.try_get_matches_from_mut(switches::joined(arguments));
        let parsed = parsed.and_then(|mut matches| {
            let parsed = Self::from_matches(&mut matches);
            parsed.map_err(|error| error.format(&mut program))
        });
        parsed.unwrap_or_else(|error| {
            let error = unknown::with_suggestion(error);
            if launcher::is_follower() {
                // The first process says it, and may be ended as soon as another one fails.
                if error.use_stderr() {
                    std::thread::sleep(LAST_WORD);
                }
                exit::end(error.exit_code());
            }
            if error.use_stderr() || std::io::stdout().is_terminal() {
                error.exit();
            }
            // Help and version are results, which clap does not miss where they cannot be written.
            print::text(&error.render().to_string());
            exit::end(0)
        })
    }

    fn from_matches(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let training = matches
            .subcommand()
            .filter(|(name, _)| TRAIN.contains(name));
        let foreign = training.map(|(_, matches)| foreign::given(matches));
        let mut parsed = Self::from_arg_matches_mut(matches)?;
        if let (Some(args), Some(foreign)) = (parsed.command.training(), foreign) {
            args.foreign = foreign;
            args.model = args.model.take().or(args.given.take());
            args.data = args.data.take().map(DataArg::split);
        }
        Ok(parsed)
    }
}

/// How long the first of several processes has to say what is wrong with their arguments.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The commands about a training, which know options of other programs.
const TRAIN: [&str; 3] = ["train", "estimate", "lr-find"];

/// The program, which has one name and version in all of its commands.
pub fn program() -> clap::Command {
    let program = help::helping(Cli::command()).mut_subcommands(|command| {
        let command = command.display_name("qoft");
        synonyms::accepting(counting(command))
    });
    let accepting = |program: clap::Command, name| program.mut_subcommand(name, foreign::accepting);
    switches::accepting(TRAIN.into_iter().fold(program, accepting))
}

/// A command that says of a wrong count what is expected, and not what Rust's parser missed.
fn counting(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(counting);
    command.mut_args(|arg| {
        let kind = arg.get_value_parser().type_id();
        if kind == TypeId::of::<usize>() {
            arg.value_parser(values::whole::<usize>)
        } else if kind == TypeId::of::<NonZeroUsize>() {
            arg.value_parser(values::whole::<NonZeroUsize>)
        } else {
            arg
        }
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a small embedded model and show what changes.
    Quickstart(QuickstartArgs),
    /// List a checkpoint's linear layers and the backends that claim them.
    Inspect(InspectArgs),
    /// List the quantization backends of this build.
    Backends(BackendsArgs),
    /// List what can compute on this machine: the CPU, and GPUs that this build knows.
    Devices(DevicesArgs),
    /// Write a quantized checkpoint as a dense one.
    Dequantize(DequantizeArgs),
    /// Write a dense checkpoint as a quantized one.
    Quantize(QuantizeArgs),
    /// Fine-tune a checkpoint; the result is a PEFT adapter folder.
    #[command(
        allow_negative_numbers = true,
        override_usage = "\
        qoft train --model <MODEL> --data <DATA> --output <OUTPUT> [OPTIONS]\n       \
        qoft train --config <FILE> [OPTIONS]\n       \
        qoft train --resume-from <FOLDER> [OPTIONS]"
    )]
    Train(Box<TrainArgs>),
    /// Measure the memory and the time that a training would need, without one.
    #[command(allow_negative_numbers = true)]
    Estimate(Box<TrainArgs>),
    /// Look for a learning rate: train for some steps while it rises.
    #[command(allow_negative_numbers = true)]
    LrFind(Box<LrFindArgs>),
    /// Multiply adapters into the weights of a checkpoint.
    Merge(MergeArgs),
    /// Write adapters as a LoRA, or a model with them as a GGUF file.
    Export(ExportArgs),
    /// Look at data as a training sees it.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure loss and perplexity on a data file.
    Eval(EvalArgs),
    /// Continue a prompt, or those of a file.
    Generate(GenerateArgs),
    /// Put an adapter or a model on the Hugging Face Hub.
    Push(PushArgs),
    /// Print what a shell completes commands and options by.
    Completions(CompletionsArgs),
    /// Write manual pages.
    Man(ManArgs),
    /// Talk with a model.
    Chat(ChatArgs),
    /// Serve a model and its adapters over HTTP, as OpenAI's servers do.
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
}

impl Command {
    /// The options of a training, if this is about one.
    pub fn training(&mut self) -> Option<&mut TrainArgs> {
        match self {
            Self::Train(args) | Self::Estimate(args) => Some(args),
            Self::LrFind(args) => Some(&mut args.train),
            _ => None,
        }
    }

    /// The options about several processes, if this is a command that they can run together.
    pub fn processes(&self) -> Option<&ProcessArgs> {
        match self {
            Self::Train(args) if !args.dry_run => Some(&args.processes),
            Self::Eval(args) => Some(&args.processes),
            _ => None,
        }
    }

    /// Puts paths here in place of names on the Hub. A training keeps the name of its model, which its
    /// adapter tells.
    pub fn locate(&mut self) -> Result<()> {
        let data = |path: &mut PathBuf| replace(path, Wanted::Data);
        let adapters = |all: &mut [AdapterArg]| all.iter_mut().try_for_each(AdapterArg::locate);
        let measured = |rows: &mut CalibrationArgs, losses: &mut Option<PathBuf>| {
            let rows = rows.calibration.as_mut().into_iter();
            rows.chain(losses).try_for_each(data)
        };
        match self {
            Self::Quickstart(_) | Self::Backends(_) | Self::Devices(_) | Self::Push(_) => Ok(()),
            Self::Completions(_) | Self::Man(_) => Ok(()),
            Self::Inspect(args) => args.model.locate(),
            Self::Dequantize(args) => args.model.locate(),
            Self::Quantize(args) => {
                args.model.locate()?;
                measured(&mut args.calibration, &mut args.data)
            }
            Self::Train(args) | Self::Estimate(args) => args.locate(),
            Self::LrFind(args) => args.train.locate(),
            Self::Merge(args) => {
                args.model.locate()?;
                adapters(&mut args.adapter)?;
                measured(&mut args.calibration, &mut args.data)
            }
            Self::Export(args) => {
                args.model.locate()?;
                adapters(&mut args.adapter)
            }
            Self::Data(DataCommand::Preview(args)) => {
                args.model.locate()?;
                args.data.iter_mut().try_for_each(locate_data)
            }
            Self::Eval(args) => {
                args.model.locate()?;
                args.data.iter_mut().try_for_each(locate_data)
            }
            Self::Generate(args) => {
                args.model.locate()?;
                args.prompts.iter_mut().try_for_each(data)
            }
            Self::Chat(args) => args.model.locate(),
            #[cfg(feature = "serve")]
            Self::Serve(args) => args.locate(),
        }
    }
}

fn replace(path: &mut PathBuf, wanted: Wanted) -> Result<()> {
    *path = place(path, wanted)?;
    Ok(())
}

/// Puts the path of `PATH[:WEIGHT]` here in place of a name on the Hub.
fn locate_data(text: &mut String) -> Result<()> {
    let mut arg = DataArg::from_text(text)?;
    let given = arg.path.clone();
    replace(&mut arg.path, Wanted::Data)?;
    if arg.path != given {
        *text = arg.to_string();
    }
    Ok(())
}

/// Options of `quickstart`.
#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// Where to put model, data and adapter; must be new or empty [default: qoft-quickstart, or
    /// the next free name].
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Training steps.
    #[arg(long, default_value_t = 200)]
    pub max_steps: usize,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelPlace,
    /// Print a line for each layer, also where several are equal.
    #[arg(long)]
    pub all: bool,
    /// An option of a backend, such as `eetq.layout=sm70`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Vec<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `backends`.
#[derive(Debug, Args)]
pub struct BackendsArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `dequantize`.
#[derive(Debug, Args)]
pub struct DequantizeArgs {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelPlace,
    /// The folder to write; must be new or empty.
    #[arg(long)]
    pub output: PathBuf,
    /// Number format of the output.
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub dtype: DtypeArg,
    /// Write the values that the model computes with here, also where the library of its scheme
    /// rounds them to a coarser dtype when it dequantizes.
    #[arg(long)]
    pub unrounded: bool,
    /// The most bytes in one file of tensors, such as `5GB` [default: 50GB].
    #[arg(long, value_name = "SIZE")]
    pub max_shard_size: Option<MaxShardSize>,
    /// An option of a backend, such as `eetq.layout=sm70`.
    #[arg(long, value_name = "BACKEND.KEY=VALUE")]
    pub backend_option: Vec<String>,
    /// Print one JSON object about what was written.
    #[arg(long)]
    pub json: bool,
}

/// A dense number format.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DtypeArg {
    /// binary32.
    #[value(alias = "float32")]
    F32,
    /// binary16.
    #[value(alias = "float16")]
    F16,
    /// bfloat16.
    #[value(alias = "bfloat16")]
    Bf16,
}

impl From<DtypeArg> for FloatFormat {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::F32 => Self::F32,
            DtypeArg::F16 => Self::F16,
            DtypeArg::Bf16 => Self::Bf16,
        }
    }
}

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// A data file, or a folder of some; several with weights are mixed.
    #[arg(long, required = true, value_name = "PATH[:WEIGHT]")]
    pub data: Vec<String>,
    /// How it is read.
    #[command(flatten)]
    pub reading: DataArgs,
    /// Rows at once.
    #[arg(long, default_value_t = 8)]
    pub batch_size: usize,
    /// Tokens that a row keeps [default: 1024].
    #[arg(long)]
    pub max_length: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Beside other processes.
    #[command(flatten)]
    pub processes: ProcessArgs,
}
