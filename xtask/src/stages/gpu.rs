//! What computes on a GPU.

use super::Stage;

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
            "whole",
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
            "whole",
            "--",
            "reference::",
            "training::",
            "train::",
            "train_generate::",
            "schemes::",
            "peft::",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_for_gpus_have_their_own_folder() {
        for stage in GPU_STAGES {
            assert!(stage.args.contains(&"target-gpu"), "{}", stage.line());
        }
    }
}
