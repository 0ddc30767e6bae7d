//! Every check of the repository.

use super::Stage;

/// Tests of what reads files, with arithmetic that ends in a panic where a size wraps around: a
/// program has no such checks, so all sizes that come from files have to be checked in code. What
/// is not of this workspace stays as it is built.
macro_rules! checked {
    ($($arg:literal),+) => {
        &[
            "test",
            "--release",
            "--workspace",
            "--config",
            "profile.release.overflow-checks=true",
            "--config",
            "profile.release.package.\"*\".overflow-checks=false",
            $($arg),+
        ]
    };
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
    // No other stage compiles it.
    Stage {
        title: "lints of code for GPUs",
        args: &[
            "clippy",
            "--release",
            "--workspace",
            "--features",
            "qoft-cli/wgpu",
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
        title: "damaged files with checked arithmetic",
        args: checked!(
            "--test",
            "conformance",
            "--test",
            "conforms",
            "--test",
            "whole",
            "--",
            "errors",
            "conform",
            "unsupported"
        ),
        env: &[],
    },
    Stage {
        title: "damaged models with checked arithmetic",
        args: checked!("--test", "program", "--", "bad_input", "random_damage"),
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
    example!("custom-rotation"),
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
    ["examples/custom-rotation", "docs/add-a-rotation.md"],
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn stages_share_the_release_profile() {
        let compiles = |stage: &&Stage| !["fmt", "package"].contains(&stage.args[0]);
        for stage in STAGES.iter().filter(compiles) {
            assert!(stage.args.contains(&"--release"), "{}", stage.line());
        }
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
}
