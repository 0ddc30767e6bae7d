//! Checks that call cargo, one after the other.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{cargo, root, say};

/// A call of cargo that has to succeed.
pub struct Stage {
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
];

/// The stages of an example, which is no member of the workspace but shares the folder of what is
/// built. Its lock file is a copy of the workspace's, without what `cargo metadata` there finds
/// unused.
macro_rules! example {
    ($name:literal) => {
        &[
            Stage {
                title: concat!($name, ": format"),
                args: &[
                    "fmt",
                    "--manifest-path",
                    concat!("examples/", $name, "/Cargo.toml"),
                    "--check",
                ],
                env: &[],
            },
            Stage {
                title: concat!($name, ": lints"),
                args: &[
                    "clippy",
                    "--release",
                    "--manifest-path",
                    concat!("examples/", $name, "/Cargo.toml"),
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
                title: concat!($name, ": tests"),
                args: &[
                    "test",
                    "--release",
                    "--manifest-path",
                    concat!("examples/", $name, "/Cargo.toml"),
                    "--target-dir",
                    "target",
                ],
                env: &[],
            },
        ]
    };
}

/// What would be published: manifests, versions and files. The sources were compiled by the stages
/// before.
const PACKAGES: &[Stage] = &[Stage {
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
}];

const DOCUMENTATION: &[Stage] = &[Stage {
    title: "documentation",
    args: &["doc", "--release", "--workspace", "--no-deps"],
    env: &[("RUSTDOCFLAGS", "-D warnings")],
}];

/// Everything that `test-all` runs.
pub const TEST_ALL: &[&[Stage]] = &[
    STAGES,
    example!("custom-backend"),
    example!("custom-architecture"),
    PACKAGES,
    DOCUMENTATION,
];

/// The examples that are crates of their own, and the guides that quote them.
#[cfg(test)]
const EXAMPLES: &[[&str; 2]] = &[
    ["examples/custom-backend", "docs/add-a-scheme.md"],
    [
        "examples/custom-architecture",
        "docs/add-an-architecture.md",
    ],
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

pub const TEST_GPU: &[&[Stage]] = &[GPU_STAGES];

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
pub fn run(name: &str, stages: &[&[Stage]]) -> Result<()> {
    let stages: Vec<&Stage> = stages.iter().copied().flatten().collect();
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
        let line = DOCUMENTATION[0].line();
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
        for [example, _] in EXAMPLES {
            for package in versions(&lock(example)) {
                assert!(known.contains(&package), "{example}: {package}");
            }
        }
    }

    /// All files below a folder that Git would keep.
    fn texts(folder: &Path) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs" | "toml" | "py") => {
                    all += &std::fs::read_to_string(&path).expect("a text");
                }
                None if path.is_dir() => all += &texts(&path),
                _ => (),
            }
        }
        all
    }

    #[test]
    fn guides_quote_their_examples() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for [example, guide] in EXAMPLES {
            let texts = texts(&root.join(example));
            let guide = std::fs::read_to_string(root.join(guide)).expect(guide);
            let blocks: Vec<&str> = guide.split("\n```").skip(1).step_by(2).collect();
            assert!(!blocks.is_empty());
            for block in blocks {
                let (_, code) = block.split_once('\n').expect("a block");
                assert!(texts.contains(code), "{code}");
            }
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
