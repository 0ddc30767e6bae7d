//! Trainings of several processes on this machine.

use anyhow::Result;

use super::{Stage, is_there};
use crate::say;

/// The feature changes no other package's features: the bindings of MPI, the program and its tests are
/// compiled beside what there is, and crates of TLS that cargo takes for changed.
pub const TEST_MPI: &[&[Stage]] = &[&[
    Stage {
        title: "several processes: lints",
        args: &[
            "clippy",
            "--release",
            "--workspace",
            "--features",
            "qoft-cli/mpi",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        env: &[],
    },
    // Each test starts up to four processes.
    Stage {
        title: "several processes: program",
        args: &[
            "test",
            "--release",
            "--workspace",
            "--features",
            "qoft-cli/mpi",
            "--test",
            "program",
            "--",
            "mpi::",
            "--test-threads=2",
        ],
        env: &[],
    },
]];

/// The programs of an MPI library: one compiles, one starts.
const PROGRAMS: [&str; 2] = ["mpicc", "mpirun"];

/// The stages of `test-all`, where an MPI library is installed; where none is, it is said.
pub fn where_installed() -> Result<&'static [&'static [Stage]]> {
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| !is_there(name))
        .collect();
    if missing.is_empty() {
        return Ok(TEST_MPI);
    }
    say(&format!(
        "--- several processes: there is no {}; one process was tested with all that several share; \
         `apt-get install openmpi-bin libopenmpi-dev libclang-dev`",
        missing.join(" and no ")
    ))?;
    Ok(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_build_with_the_feature_and_share_what_is_built() {
        for stage in TEST_MPI.iter().copied().flatten() {
            let line = stage.line();
            assert!(line.contains("--features qoft-cli/mpi"), "{line}");
            assert!(line.contains("--release --workspace"), "{line}");
            assert!(!line.contains("--target-dir"), "{line}");
        }
        assert!(!is_there("no-such-program-anywhere"));
    }
}
