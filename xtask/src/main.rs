//! Chores of the repository, run as `cargo xtask COMMAND`.
//!
//! `test-all` runs every check, one stage after the other, and stops at the first failure. All
//! stages that compile use the release profile, so that Burn is compiled once. `test-gpu` runs the
//! tests of everything that computes on a GPU, or on Mesa's software Vulkan where there is none; it
//! has a folder of its own for what is built. `test-mpi` starts several processes; it is part of `test-all`
//! where an MPI library is installed.

mod bench;
mod cuda;
mod figures;
mod stages;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Chores of the repository.

Usage: cargo xtask COMMAND

Commands:
  test-all             Format, lints, tests of all crates, feature sets and examples, documentation
  test-mpi             Trainings of several processes, by mpirun on this machine
  test-gpu             What computes, on the first GPU that wgpu finds
  setup-cuda-llvm      LLVM from PyPI, for builds with the feature cuda that reach package registries only
  test-cuda-compile    Kernels and program for NVIDIA's GPUs, compiled without one
  bench [OPTIONS]      Times and memory, beside PEFT's if wanted; bench --help lists the options
  bench-gpu [DEVICE]   Times of the packed product on a GPU
  figures              Measured figures in documents, from the files of results
  fuzz [SECONDS]       Damaged files for every scheme
  help                 This text";

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The folder of the workspace.
fn root() -> Result<&'static Path> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.context("xtask lies in no workspace")
}

/// Times of the packed product on a GPU: an example of the facade.
fn bench_gpu(device: &str) -> Result<()> {
    let status = Command::new(cargo())
        .args(["run", "--release", "--target-dir", "target-gpu"])
        .args(["--package", "qoft", "--features", device])
        .args(["--example", "bench_packed"])
        .env("QOFT_DEVICE", device)
        .current_dir(root()?)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the benchmark failed ({status})");
    }
    Ok(())
}

/// The conformance suite of every scheme, with a long random part.
fn fuzz(seconds: &str) -> Result<()> {
    let number: u64 = seconds.parse().context("SECONDS is no number")?;
    let status = Command::new(cargo())
        .args(["test", "--release", "--workspace", "--no-fail-fast"])
        .args(["--test", "conformance", "--", "--nocapture"])
        .env("FUZZ_SECONDS", number.to_string())
        .current_dir(root()?)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("a scheme failed ({status}); the folder of the damaged layer is named above");
    }
    Ok(())
}

/// Writes a line at once, so that it stands before the output of the next child.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["help" | "-h" | "--help"] => say(HELP),
        ["test-all"] => {
            stages::run_tools(root()?)?;
            let stages = [stages::TEST_ALL, stages::mpi_where_installed()?].concat();
            stages::run("test-all", &stages)
        }
        ["test-mpi"] => stages::run("test-mpi", stages::TEST_MPI),
        ["test-gpu"] => stages::run("test-gpu", stages::TEST_GPU),
        ["setup-cuda-llvm"] => cuda::set_up(root()?),
        ["test-cuda-compile"] => cuda::test_compile(root()?),
        ["bench", ref options @ ..] => bench::run(options, root()?),
        ["bench-gpu"] => bench_gpu("wgpu"),
        ["bench-gpu", device] => bench_gpu(device),
        ["figures"] => figures::run(root()?),
        ["fuzz"] => fuzz("600"),
        ["fuzz", seconds] => fuzz(seconds),
        _ => bail!("unknown arguments: {}\n\n{HELP}", args.join(" ")),
    }
}
