//! The program where a launcher says that it started several.

use crate::common::{qoft_with, temporary};

/// A process that cannot reach the others does not do alone, and as often as there are processes, what
/// they were to do together.
#[test]
fn one_of_several_that_finds_no_others_does_nothing() {
    let work = temporary();
    let out = work.path().join("out");
    let out = out.to_str().expect("a path");
    let run = qoft_with(
        &[("SLURM_STEP_NUM_TASKS", "4")],
        &["quickstart", "--output", out],
    );
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let says = "a launcher says that it started 4 processes (SLURM_STEP_NUM_TASKS)";
    assert!(run.stderr.contains(says), "{}", run.stderr);
    let why = match cfg!(feature = "mpi") {
        true => "knows of 1",
        false => "the Cargo feature `mpi`",
    };
    assert!(run.stderr.contains(why), "{}", run.stderr);
    assert!(!std::path::Path::new(out).exists());
    let one = qoft_with(&[("SLURM_STEP_NUM_TASKS", "1")], &["backends"]);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
}
