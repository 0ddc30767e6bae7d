//! Chores of the repository, run as `cargo xtask COMMAND`.
//!
//! `test-all` runs every check, one stage after the other, and stops at the first failure. All
//! stages that compile use the release profile, so that Burn is compiled once. `test-gpu` runs the
//! tests of everything that computes on a GPU, or on Mesa's software Vulkan where there is none; it
//! has a folder of its own for what is built.

mod bench;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Chores of the repository.

Usage: cargo xtask COMMAND

Commands:
  test-all             Format, lints, tests of all crates, feature sets and examples, documentation
  test-gpu             What computes, on the first GPU that wgpu finds
  bench [OPTIONS]      Times and memory, beside PEFT's if wanted; bench --help lists the options
  bench-gpu [DEVICE]   Times of the packed product on a GPU
  fuzz [SECONDS]       Damaged files for every scheme
  help                 This text";

/// A call of cargo that has to succeed.
struct Stage {
    title: &'static str,
    /// Arguments of cargo.
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const STAGES: &[Stage] = &[
    Stage {
        title: "format",
        args: &["fmt", "--all", "--check"],
        env: &[],
    },
    Stage {
        title: "lints",
        args: &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        env: &[],
    },
    // Criterion's benchmarks are no member of the workspace, and no other stage compiles them.
    Stage {
        title: "kernel benchmarks: format",
        args: &[
            "fmt",
            "--manifest-path",
            "crates/qoft-kernels/criterion/Cargo.toml",
            "--check",
        ],
        env: &[],
    },
    Stage {
        title: "kernel benchmarks: lints",
        args: &[
            "clippy",
            "--release",
            "--locked",
            "--manifest-path",
            "crates/qoft-kernels/criterion/Cargo.toml",
            "--target-dir",
            "target",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        env: &[],
    },
    // In these stages all crates are selected, so that Burn's shared parts keep their features and
    // are not built once more. The tests come after them and leave the whole program behind.
    Stage {
        title: "program without features",
        args: &["check", "--release", "--workspace", "--no-default-features"],
        env: &[],
    },
    Stage {
        title: "program with one scheme",
        args: &[
            "test",
            "--release",
            "--workspace",
            "--no-default-features",
            "--features",
            "qoft-cli/gptq",
            "--test",
            "one_scheme",
        ],
        env: &[],
    },
    Stage {
        title: "tests",
        args: &["test", "--release", "--workspace"],
        env: &[],
    },
    Stage {
        title: "the core on Burn's ndarray backend",
        args: &[
            "test",
            "--release",
            "--workspace",
            "--features",
            "qoft-oft/ndarray",
            "--test",
            "ndarray",
        ],
        env: &[],
    },
    // The example is no member of the workspace; it shares the folder of what is built. Its lock
    // file is a copy of the workspace's, without what `cargo metadata` there finds unused.
    Stage {
        title: "example: format",
        args: &[
            "fmt",
            "--manifest-path",
            "examples/custom-backend/Cargo.toml",
            "--check",
        ],
        env: &[],
    },
    Stage {
        title: "example: lints",
        args: &[
            "clippy",
            "--release",
            "--manifest-path",
            "examples/custom-backend/Cargo.toml",
            "--target-dir",
            "target",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        env: &[],
    },
    Stage {
        title: "example: tests",
        args: &[
            "test",
            "--release",
            "--manifest-path",
            "examples/custom-backend/Cargo.toml",
            "--target-dir",
            "target",
        ],
        env: &[],
    },
    // What would be published: manifests, versions and files. The sources were compiled above.
    Stage {
        title: "packages",
        args: &[
            "package",
            "--workspace",
            "--no-verify",
            "--allow-dirty",
            "--exclude",
            "qoft-fixtures",
            "--exclude",
            "xtask",
        ],
        env: &[],
    },
    Stage {
        title: "documentation",
        args: &["doc", "--release", "--workspace", "--no-deps"],
        env: &[("RUSTDOCFLAGS", "-D warnings")],
    },
];

/// Arguments of cargo for the stages of `test-gpu`, after the command.
macro_rules! gpu {
    ($command:literal $(, $arg:literal)*) => {
        &[
            $command,
            "--profile",
            "test-gpu",
            "--target-dir",
            "target-gpu",
            "--workspace",
            "--features",
            "qoft-cli/wgpu",
            $($arg),*
        ]
    };
}

/// The device of the tests, and no time for random damage, which has nothing to do with it.
const GPU: &[(&str, &str)] = &[("QOFT_DEVICE", "wgpu"), ("FUZZ_SECONDS", "0")];

const GPU_STAGES: &[Stage] = &[
    Stage {
        title: "lints",
        args: gpu!("clippy", "--all-targets", "--", "-D", "warnings"),
        env: GPU,
    },
    Stage {
        title: "operations",
        args: gpu!(
            "test",
            "--lib",
            "--test",
            "packed",
            "--",
            "composed",
            "--test-threads=1"
        ),
        env: GPU,
    },
    Stage {
        title: "kernels of every scheme",
        args: gpu!("test", "--test", "conformance"),
        env: GPU,
    },
    Stage {
        title: "models and training",
        args: gpu!(
            "test",
            "--test",
            "reference",
            "--test",
            "training",
            "--test",
            "train",
            "--test",
            "train_generate",
            "--test",
            "schemes",
            "--test",
            "peft",
            "--",
            "--test-threads=1"
        ),
        env: GPU,
    },
    Stage {
        title: "program",
        args: gpu!("test", "--test", "program", "--", "gpu", "--test-threads=1"),
        env: &[],
    },
];

impl Stage {
    /// The stage as one would type it.
    fn line(&self) -> String {
        let env = self
            .env
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\" "));
        format!("{}cargo {}", env.collect::<String>(), self.args.join(" "))
    }

    fn run(&self, cargo: &OsString, root: &Path) -> Result<()> {
        let status = Command::new(cargo)
            .args(self.args)
            .envs(self.env.iter().copied())
            .current_dir(root)
            .status()
            .with_context(|| format!("cannot run {}", cargo.display()))?;
        if !status.success() {
            bail!(
                "stage \"{}\" failed ({status}): {}",
                self.title,
                self.line()
            );
        }
        Ok(())
    }
}

/// Runs stages one after the other; `name` is the command that they make up.
fn run_stages(name: &str, stages: &[Stage]) -> Result<()> {
    let cargo = cargo();
    let root = root()?;
    let count = stages.len();
    let began = Instant::now();
    let mut times: Vec<(&str, Duration)> = Vec::with_capacity(count);
    for (index, stage) in stages.iter().enumerate() {
        say(&format!(
            "\n=== {}/{count} {}\n    {}\n",
            index + 1,
            stage.title,
            stage.line()
        ))?;
        let start = Instant::now();
        stage.run(&cargo, root)?;
        let time = start.elapsed();
        say(&format!(
            "--- {}/{count} {}: ok in {:.1} s",
            index + 1,
            stage.title,
            time.as_secs_f64()
        ))?;
        times.push((stage.title, time));
    }
    say("\n=== summary")?;
    for (title, time) in times {
        say(&format!("{:8.1} s  {title}", time.as_secs_f64()))?;
    }
    say(&format!(
        "{name}: {count} of {count} stages passed in {:.1} s",
        began.elapsed().as_secs_f64()
    ))
}

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
        ["test-all"] => run_stages("test-all", STAGES),
        ["test-gpu"] => run_stages("test-gpu", GPU_STAGES),
        ["bench", ref options @ ..] => bench::run(options, root()?),
        ["bench-gpu"] => bench_gpu("wgpu"),
        ["bench-gpu", device] => bench_gpu(device),
        ["fuzz"] => fuzz("600"),
        ["fuzz", seconds] => fuzz(seconds),
        _ => bail!("unknown arguments: {}\n\n{HELP}", args.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_share_the_release_profile() {
        let compiles = |stage: &&Stage| !["fmt", "package"].contains(&stage.args[0]);
        for stage in STAGES.iter().filter(compiles) {
            assert!(stage.args.contains(&"--release"), "{}", stage.line());
        }
    }

    #[test]
    fn stages_for_gpus_have_their_own_folder() {
        for stage in GPU_STAGES {
            assert!(stage.args.contains(&"target-gpu"), "{}", stage.line());
        }
    }

    #[test]
    fn a_line_can_be_typed() {
        let line = STAGES.last().expect("stages").line();
        let expected = "RUSTDOCFLAGS=\"-D warnings\" cargo doc --release --workspace --no-deps";
        assert_eq!(line, expected);
    }

    #[test]
    fn examples_use_the_versions_of_the_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let lock = |folder: &str| {
            let file = root.join(folder).join("Cargo.lock");
            std::fs::read_to_string(file).expect("a lock file")
        };
        let versions = |lock: &str| -> Vec<String> {
            let packages = lock.split("[[package]]").skip(1);
            let packages = packages.filter(|package| package.contains("\nchecksum"));
            let first = |package: &str| package.lines().take(3).collect();
            packages.map(first).collect()
        };
        let known = versions(&lock("."));
        for package in versions(&lock("examples/custom-backend")) {
            assert!(known.contains(&package), "{package}");
        }
    }

    #[test]
    fn the_guide_quotes_the_example() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
        let files = ["Cargo.toml", "src/lib.rs", "src/layout.rs", "src/main.rs"];
        let files = files.map(|file| read(&format!("examples/custom-backend/{file}")));
        let guide = read("docs/add-a-scheme.md");
        let blocks: Vec<&str> = guide.split("\n```").skip(1).step_by(2).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let (_, code) = block.split_once('\n').expect("a block");
            assert!(files.iter().any(|file| file.contains(code)), "{code}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_failing_stage_is_named() {
        let stage = Stage {
            title: "nonsense",
            args: &["some", "arguments"],
            env: &[],
        };
        let error = stage
            .run(&"false".into(), Path::new("."))
            .expect_err("fails");
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}
